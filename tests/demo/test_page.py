"""The page from end to end, in a headless Chromium: what a person does, and what goes wrong."""

import ipaddress
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from zipfile import ZipFile

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, FloatRect, Locator, Page, ViewportSize
    from tests.demo.conftest import Served, WrongFiles

# Gradio 6 asks pandas 3 for what pandas 4 will not have; as errors these would stop its queue.
pytestmark = [
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting':DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated:DeprecationWarning"),
]

OWN = "cifar10_nano_kmeans"
AWKWARD = "<img src=x onerror=alert(1)> ${value} {{value}} _a_.jpg"
WIDE: "ViewportSize" = {"width": 1200, "height": 900}
PHONE: "ViewportSize" = {"width": 390, "height": 844}
Scheme = Literal["light", "dark"]
STREAM = "/queue/data"
SETTLED = 2000  # milliseconds after which a stale result would have come
OpenPage = Callable[..., "Page"]

# The contrast between a text and the first painted background behind it, after WCAG 2.
CONTRAST = """
(element) => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (color) => {
    const [r, g, b] = rgba(color).slice(0, 3).map((part) => {
      part /= 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let behind = element;
  while (behind.parentElement && rgba(getComputedStyle(behind).backgroundColor)[3] < 255) {
    behind = behind.parentElement;
  }
  const text = luminance(getComputedStyle(element).color);
  const paper = luminance(getComputedStyle(behind).backgroundColor);
  return (Math.max(text, paper) + 0.05) / (Math.min(text, paper) + 0.05);
}
"""


@pytest.fixture(scope="module")
def connections() -> Iterator[list[str]]:
    """Where this process, and so the server, connects to or asks a name server for."""
    asked: list[str] = []
    listening = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if listening and event in ("socket.connect", "socket.getaddrinfo"):
            where = arguments[1] if event == "socket.connect" else arguments[0]
            asked.append(str(where[0] if isinstance(where, tuple) else where))

    sys.addaudithook(hook)
    yield asked
    listening = False


@pytest.fixture
def open_page(connections: list[str], browser: "Browser", served: "Served") -> Iterator[OpenPage]:
    """Opens the page, ready to use; afterwards nobody else has been asked and nothing failed."""
    problems: list[str] = []
    contexts = []

    def asked(request: Any) -> None:
        if not request.url.startswith((served.url, "data:", "blob:" + served.url)):
            problems.append(f"outside request: {request.url}")

    def said(message: Any) -> None:
        if message.type == "error":
            problems.append(message.text)

    def open_page(viewport: "ViewportSize" = WIDE, scheme: Scheme = "light") -> "Page":
        context = browser.new_context(viewport=viewport, color_scheme=scheme)
        contexts.append(context)
        context.on("request", asked)
        page = context.new_page()
        page.on("console", said)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.on("websocket", lambda socket: problems.append(socket.url))
        page.goto(served.url)
        wait_for(page, "bird.jpg, explained by")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []
    assert [host for host in connections if not is_here(host)] == []


def is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", "None")


def wait_for(page: "Page", status: str) -> None:
    page.locator(".pv-message").filter(has_text=status).first.wait_for()


def upload(page: "Page", file: Path) -> None:
    if page.get_by_label("Remove Image").count():
        page.get_by_label("Remove Image").click()
        wait_for(page, "Drop an image")
    page.locator("#pv-image input[type=file]").set_input_files(file)


def tab(page: "Page", name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def choose(page: "Page", label: str, option: str) -> None:
    page.get_by_label(label).click()
    page.get_by_role("option", name=option, exact=True).click()


def tab_to(page: "Page", reached: str) -> None:
    """Press the tabulator until an expression is true."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(reached):
            return
    pytest.fail(f"no way to where {reached}")


def patch_picture(page: "Page") -> "tuple[Locator, FloatRect]":
    """The picture to click in, and where it is once it has been loaded and laid out."""
    picture = page.locator("#pv-patch-picture img")
    picture.evaluate("element => element.decode()")
    page.evaluate("() => new Promise(requestAnimationFrame)")
    box = picture.bounding_box()
    assert box is not None
    return picture, box


def heading(page: "Page", text: str) -> None:
    page.locator("#pv-patch h3").filter(has_text=text).wait_for()


@pytest.mark.browser
def test_an_upload_is_explained(open_page: OpenPage, served: "Served", tmp_path: Path) -> None:
    page = open_page()
    file = tmp_path / AWKWARD
    file.write_bytes(served.examples["ship"].read_bytes())
    upload(page, file)
    wait_for(page, "explained by cifar10_nano_kmeans")
    status = page.locator(".pv-message").first.inner_text()
    assert status == f"{AWKWARD}, explained by {OWN}"
    assert page.locator("#pv-top li").count() == 5
    assert page.locator("#pv-top .pv-chosen").inner_text().startswith("ship")
    choose(page, "Class to explain", "truck")
    page.locator("#pv-masks").filter(has_text="evidence for truck").wait_for()
    choose(page, "Weights", "cifar10_nano_conv")
    wait_for(page, "explained by cifar10_nano_conv")
    tab(page, "Clusters")
    assert page.locator("#pv-galleries section").count() == 2
    assert page.locator("#pv-galleries figure").count() == 2 * (1 + 16)


@pytest.mark.browser
def test_the_mask_follows_the_slider(open_page: OpenPage) -> None:
    page = open_page()
    mask = page.get_by_alt_text("binary mask")
    before = mask.get_attribute("src")
    page.locator("#pv-share input[type=range]").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.locator("#pv-masks").filter(has_text="mask: 30.0%").wait_for()
    assert mask.get_attribute("src") != before
    page.get_by_label("attention map").click()
    page.locator("#pv-masks").filter(has_text="for any class").wait_for()
    page.get_by_label("Otsu").click()
    page.locator("#pv-share input[type=range]:disabled").wait_for()


@pytest.mark.browser
def test_a_click_shows_what_the_patch_attends_to(open_page: OpenPage) -> None:
    page = open_page()
    tab(page, "Patches")
    picture, box = patch_picture(page)
    picture.click(position={"x": 0.55 * box["width"], "y": 0.8 * box["height"]})
    heading(page, "row 7, column 5")
    assert page.locator("#pv-patch figure").count() == 12
    page.get_by_label("0", exact=True).click()
    page.locator("#pv-row input[type=range][max='16']").wait_for()
    picture.click(position={"x": 2, "y": 2})
    heading(page, "row 1, column 1")


@pytest.mark.browser
def test_two_clusterings_side_by_side(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    tab(page, "Compare")
    choose(page, "Compare with", "cifar10_nano_conv")
    columns = page.locator("#pv-comparison section")
    columns.nth(1).wait_for()
    assert columns.locator("h3").all_inner_texts() == [OWN, "cifar10_nano_conv"]
    page.get_by_role("button", name="ship").click()
    page.locator("#pv-comparison").filter(has_text="evidence for ship").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download everything").click()
    assert download.value.suggested_filename == "ship-explained.zip"
    download.value.save_as(tmp_path / "all.zip")
    with ZipFile(tmp_path / "all.zip") as archive:
        names = archive.namelist()
    assert "ship-explained/index.html" in names
    assert any("by cifar10_nano_conv" in name for name in names)


@pytest.mark.browser
def test_wrong_files_give_a_message(
    open_page: OpenPage, wrong_files: "WrongFiles", tmp_path: Path
) -> None:
    page = open_page()
    for wrong, told in (
        ("broken", "x.png is a broken image"),
        ("enormous", "9000 x 9000 pixels, more than the limit"),
        ("animated", "x.png is an animation"),
    ):
        wrong_files[wrong](tmp_path / "x.png")
        upload(page, tmp_path / "x.png")
        wait_for(page, told)
        assert page.get_by_role("alert").filter(has_text=told).is_visible()
        assert page.locator("#pv-masks figure").count() == 0
        assert page.get_by_role("button", name="Download everything").is_disabled()
        assert "Traceback" not in page.content()
    page.get_by_role("button", name="truck").click()
    wait_for(page, "truck.jpg, explained by")
    assert page.locator("#pv-masks figure").count() == 4


@pytest.mark.browser
def test_results_come_through_one_stream(open_page: OpenPage) -> None:
    # Gradio loses an event that is sent while it closes the stream of a page that seems to be done.
    page = open_page()
    streams: list[str] = []
    ended: list[str] = []
    page.on("request", lambda asked: streams.append(asked.url) if STREAM in asked.url else None)
    page.on("requestfailed", lambda asked: ended.append(asked.url) if STREAM in asked.url else None)
    page.wait_for_timeout(SETTLED)
    page.get_by_role("button", name="ship").click()
    wait_for(page, "ship.jpg, explained by")
    page.wait_for_timeout(SETTLED)
    assert (streams, ended) == ([], [])


@pytest.mark.browser
def test_rapid_clicks_end_with_the_last(open_page: OpenPage) -> None:
    page = open_page()
    for _ in range(3):
        for name in ("ship", "automobile", "bird", "truck"):
            page.get_by_role("button", name=name).click()
    wait_for(page, "truck.jpg, explained by")
    page.wait_for_timeout(SETTLED)
    assert page.locator(".pv-message").first.inner_text().startswith("truck.jpg")
    assert page.locator("#pv-top .pv-chosen").inner_text().startswith("truck")
    assert "truck.jpg" in (page.locator("#pv-image img").get_attribute("src") or "")
    tab(page, "Patches")
    picture, box = patch_picture(page)
    for step in range(12):
        picture.click(position={"x": (0.06 + 0.07 * step) * box["width"], "y": 5})
    heading(page, "row 1, column 7")
    page.wait_for_timeout(SETTLED)
    heading(page, "row 1, column 7")


@pytest.mark.browser
def test_no_mouse_is_needed(open_page: OpenPage) -> None:
    page = open_page()
    tab_to(page, "document.activeElement.getAttribute('aria-label') === 'ship'")
    page.keyboard.press("Enter")
    wait_for(page, "ship.jpg, explained by")
    tab_to(page, "document.activeElement.textContent.trim() === 'Patches'")
    page.keyboard.press("Enter")
    page.locator("#pv-row").wait_for()
    tab_to(page, "document.activeElement.matches('#pv-row input[type=range]')")
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    heading(page, "row 8")
    page.keyboard.press("ArrowLeft")
    heading(page, "row 7")


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_readable_on_a_phone(open_page: OpenPage, scheme: Scheme) -> None:
    page = open_page(PHONE, scheme)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in paper[4:-1].split(",")) < 200) == (scheme == "dark")
    for name in ("Clusters", "Patches", "Compare", "Map"):
        tab(page, name)
        if name == "Compare":
            choose(page, "Compare with", "cifar10_nano_conv")
            page.locator("#pv-comparison figure").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        texts = page.locator(
            ".pv-head h1, .pv-head p, .pv-message, .pv-note, figcaption, figcaption small, h3"
        )
        for text in texts.all():
            if text.is_visible():
                assert text.evaluate(CONTRAST) >= 4.5, text.inner_text()


def test_only_names_of_this_machine_are_answered(served: "Served") -> None:
    with urlopen(served.url, timeout=60) as answer:
        assert "connect-src 'self'" in answer.headers["content-security-policy"]
    with pytest.raises(HTTPError, match="400"):
        urlopen(Request(served.url, headers={"Host": "example.org"}), timeout=60)
    with pytest.raises(HTTPError, match="404"):
        urlopen(served.url + "docs", timeout=60)
