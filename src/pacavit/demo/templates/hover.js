() => {
  // Shows the class under the cursor; the cells of the image are in the fragment below it.
  if (window.pvHover) return;
  window.pvHover = true;
  document.addEventListener("mousemove", (event) => {
    const image = event.target;
    const line = document.querySelector("#pv-hover .pv-hover");
    if (!line || !(image instanceof HTMLImageElement)) return;
    if (!image.closest("#pv-classes-picture")) return;
    // The element may be larger than the picture, which keeps its aspect ratio in it.
    const box = image.getBoundingClientRect();
    const scale = Math.min(box.width / image.naturalWidth, box.height / image.naturalHeight);
    const across = (event.clientX - box.left - box.width / 2) / (scale * image.naturalWidth) + 0.5;
    const down = (event.clientY - box.top - box.height / 2) / (scale * image.naturalHeight) + 0.5;
    if (across < 0 || across >= 1 || down < 0 || down >= 1) return;
    const { width, height, cells, names, colors } = line.dataset;
    if (line.pvCells !== cells) {
      line.pvCells = cells;
      line.pvBytes = Uint8Array.from(atob(cells), (letter) => letter.charCodeAt(0));
    }
    const label = line.pvBytes[Math.floor(down * height) * width + Math.floor(across * width)];
    line.lastElementChild.textContent = JSON.parse(names)[label];
    line.firstElementChild.style.background = JSON.parse(colors)[label];
  });
}
