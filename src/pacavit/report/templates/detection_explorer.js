(() => {
  const { at, bytes, data, draw, frame, heat, onArrows, outline, paint, start, tile } = explorer;
  const canvas = at("canvas"), whole = [0, 0, 1, 1];
  let image, picture, chosen = 0;

  function unpack(packed) {
    if (packed.unpacked) return packed;
    for (const object of packed.objects) {
      if (object.map) object.map.values = bytes(object.map.bytes);
      if (object.mask) object.mask.inside = bytes(object.mask.bytes);
    }
    const clusters = packed.clusters;
    if (clusters) {
      const flat = bytes(clusters.weightBytes), length = flat.length / clusters.names.length;
      clusters.weights = clusters.names.map((_, k) => flat.subarray(k * length, (k + 1) * length));
    }
    packed.unpacked = true;
    return packed;
  }

  const over = (size, values) => ({ small: paint(size, heat(values)), box: whole, seen: whole, smooth: true });
  const mapLayer = (object) => over(object.map.size, object.map.values);

  function layer() {
    const view = at("view").value, object = image.objects[chosen];
    if (view === "map") return object && object.map ? mapLayer(object) : null;
    if (view === "objects") return null;
    const { size, weights } = image.clusters;
    return over(size, weights[Number(view.slice("cluster-".length))]);
  }

  const inPixels = ([top, left, height, width]) =>
    [left * canvas.width, top * canvas.height, width * canvas.width, height * canvas.height];

  // A box in the color of its class, with black edges.
  function rectangle(object) {
    const pen = canvas.getContext("2d");
    pen.setLineDash(object.asked ? [8, 5] : []);
    for (const [color, line] of [["#000", 4], [`rgb(${object.color.join(" ")})`, 2]]) {
      pen.strokeStyle = color;
      pen.lineWidth = line;
      pen.strokeRect(...inPixels(object.box));
    }
    pen.setLineDash([]);
  }

  function refresh() {
    draw(canvas, picture, layer(), at("strength").value / 100);
    image.objects.forEach(rectangle);
    const object = image.objects[chosen];
    for (const button of at("objects").querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.object) === chosen));
    }
    if (!object) return;
    if (object.mask) outline(canvas, object.mask.inside, object.mask.size, object.mask.box);
    frame(canvas, ...inPixels(object.box));
    at("patch").textContent = object.title;
    at("facts").replaceChildren(...object.facts.flatMap(([name, value]) => {
      const pair = [document.createElement("dt"), document.createElement("dd")];
      [pair[0].textContent, pair[1].textContent] = [name, value];
      return pair;
    }));
    at("unmapped").hidden = Boolean(object.map);
  }

  function choose(number) {
    chosen = number;
    refresh();
  }

  // The maps of all objects that have one, as buttons.
  function fill() {
    at("objects").replaceChildren(...image.objects.flatMap((object, number) => {
      if (!object.map) return [];
      const item = document.createElement("li"), button = document.createElement("button");
      button.type = "button";
      button.dataset.object = number;
      button.append(tile(canvas, picture, mapLayer(object)), `${number + 1}: ${object.name}`);
      button.addEventListener("click", () => choose(number));
      item.append(button);
      return [item];
    }));
  }

  function prepare(one) {
    image = unpack(one);
    chosen = 0;
    const view = at("view").value, option = (value, text) => new Option(text, value);
    const options = [option("map", "map of the object"), option("objects", "objects alone")];
    if (image.clusters) {
      image.clusters.names.forEach((name, k) => options.push(option(`cluster-${k}`, `cluster: ${name}`)));
    }
    at("view").replaceChildren(...options);
    if (options.some((entry) => entry.value === view)) at("view").value = view;
    at("legend").replaceChildren(...image.legend.map(([name, color]) => {
      const item = document.createElement("li"), swatch = document.createElement("span");
      swatch.style.background = `rgb(${color.join(" ")})`;
      item.append(swatch, name);
      return item;
    }));
    at("patch").textContent = image.objects.length ? "" : "Nothing is explained";
    at("none").hidden = image.objects.length > 0;
    at("facts").replaceChildren();
    at("unmapped").hidden = true;
    at("mapped").hidden = !image.objects.some((object) => object.map);
    at("hover").textContent = "";
  }

  // The smallest object at a place of the canvas; -1 if there is none.
  function objectAt(event) {
    const x = event.offsetX / canvas.clientWidth, y = event.offsetY / canvas.clientHeight;
    const area = ({ box }) => box[2] * box[3];
    return image.objects.reduce((best, object, number) => {
      const [top, left, height, width] = object.box;
      const here = left <= x && x <= left + width && top <= y && y <= top + height;
      return here && (best < 0 || area(object) < area(image.objects[best])) ? number : best;
    }, -1);
  }

  canvas.addEventListener("click", (event) => {
    const found = objectAt(event);
    if (found >= 0) choose(found);
  });
  canvas.addEventListener("mousemove", (event) => {
    const object = image.objects[objectAt(event)];
    at("hover").textContent = object ? `Under the cursor: ${object.name}` : "";
  });
  onArrows(canvas, (down, right) => {
    choose(Math.min(Math.max(chosen + down + right, 0), Math.max(image.objects.length - 1, 0)));
    return true;
  });
  at("view").addEventListener("change", refresh);
  at("strength").addEventListener("input", refresh);
  start(prepare, (loaded) => {
    picture = loaded;
    fill();
    refresh();
  });
})();
