(() => {
  const { at, bar, bytes, data, draw, frame, heat, onArrows, outline, paint, percent, start, tile } = explorer;
  const canvas = at("canvas"), whole = [0, 0, 1, 1];
  const { names, palette } = data;
  let image, picture, cell = 0;

  function unpack(packed) {
    if (packed.classes) return packed;
    packed.classes = bytes(packed.classBytes);
    packed.probabilities = bytes(packed.probabilityBytes);
    for (const region of packed.regions) {
      region.values = bytes(region.bytes);
      region.inside = bytes(region.insideBytes);
    }
    const clusters = packed.clusters;
    if (clusters) {
      clusters.alone = bytes(clusters.aloneBytes);
      const flat = bytes(clusters.weightBytes), length = flat.length / names.length;
      clusters.weights = names.map((_, k) => flat.subarray(k * length, (k + 1) * length));
      if (clusters.attendedBytes) {
        clusters.attended = bytes(clusters.attendedBytes);
        clusters.attention = bytes(clusters.attentionBytes);
      }
    }
    return packed;
  }

  const over = (small, smooth) => ({ small, box: whole, seen: whole, smooth });
  const clusterLayer = (k) => over(paint(image.clusters.size, heat(image.clusters.weights[k])), true);
  const inColor = (label) => [...palette[label], 255];

  // The most likely entries of a cell: [[class, fraction], ...], from the bytes of all cells.
  function top(classes, values, index) {
    const kept = image.kept;
    return Array.from({ length: kept }, (_, rank) => kept * index + rank)
      .map((place) => [classes[place], values[place] / 255]);
  }

  function layer() {
    const view = at("view").value;
    if (view === "classes") {
      return over(paint(image.grid, (index) => inColor(image.classes[image.kept * index])), false);
    }
    if (view === "alone") {
      return over(paint(image.grid, (index) => inColor(image.clusters.alone[index])), false);
    }
    if (view.startsWith("cluster-")) return clusterLayer(Number(view.slice("cluster-".length)));
    const region = image.regions[Number(view.slice("region-".length))];
    return over(paint(region.size, heat(region.values)), true);
  }

  function refresh() {
    const [rows, columns] = image.grid, view = at("view").value;
    draw(canvas, picture, layer(), at("strength").value / 100);
    if (view.startsWith("region-")) {
      outline(canvas, image.regions[Number(view.slice("region-".length))].inside, image.grid, whole);
    }
    const row = Math.floor(cell / columns), column = cell % columns;
    const wide = canvas.width / columns, tall = canvas.height / rows, size = 10;
    frame(canvas, (column + 0.5) * wide - size / 2, (row + 0.5) * tall - size / 2, size, size);
    const likely = top(image.classes, image.probabilities, cell);
    const x = Math.floor((column + 0.5) * image.size[1] / columns);
    const y = Math.floor((row + 0.5) * image.size[0] / rows);
    at("patch").textContent = `Pixel ${x},${y}: ${names[likely[0][0]]}`;
    at("classes").replaceChildren(...likely.filter(([, value], rank) => !rank || value > 0.004).map(([label, value]) => {
      const item = document.createElement("li"), swatch = document.createElement("span");
      swatch.style.background = `rgb(${palette[label].join(" ")})`;
      swatch.className = "swatch";
      item.append(swatch, bar(`${names[label]} ${percent(value)}`, value));
      return item;
    }));
    if (!image.clusters || !image.clusters.attended) return;
    const attended = top(image.clusters.attended, image.clusters.attention, cell);
    at("clusters").replaceChildren(...attended.filter(([, value], rank) => !rank || value > 0.004).map(([k, value]) => {
      const item = document.createElement("li");
      item.append(tile(canvas, picture, clusterLayer(k)), bar(`${names[k]}: ${percent(value)}`, value));
      return item;
    }));
  }

  function prepare(chosen) {
    image = unpack(chosen);
    const option = (value, text) => new Option(text, value), view = at("view").value;
    const options = [option("classes", "predicted classes")];
    image.regions.forEach((region, n) => options.push(option(`region-${n}`, region.title)));
    if (image.clusters) {
      options.push(option("alone", "classes of the clusters alone"));
      names.forEach((name, k) => options.push(option(`cluster-${k}`, `cluster of ${name}`)));
    }
    at("view").replaceChildren(...options);
    if (options.some((entry) => entry.value === view)) at("view").value = view;
    const [rows, columns] = image.grid;
    cell = Math.floor(rows / 2) * columns + Math.floor(columns / 2);
    at("attends").hidden = !(image.clusters && image.clusters.attended);
    at("hover").textContent = "";
  }

  function cellAt(event) {
    const [rows, columns] = image.grid;
    const row = Math.floor((event.offsetY / canvas.clientHeight) * rows);
    const column = Math.floor((event.offsetX / canvas.clientWidth) * columns);
    return Math.min(Math.max(row, 0), rows - 1) * columns + Math.min(Math.max(column, 0), columns - 1);
  }

  canvas.addEventListener("click", (event) => {
    cell = cellAt(event);
    refresh();
  });
  canvas.addEventListener("mousemove", (event) => {
    const [label, value] = top(image.classes, image.probabilities, cellAt(event))[0];
    at("hover").textContent = `Under the cursor: ${names[label]} ${percent(value)}`;
  });
  onArrows(canvas, (down, right) => {
    const [rows, columns] = image.grid;
    const row = Math.min(Math.max(Math.floor(cell / columns) + down, 0), rows - 1);
    cell = row * columns + Math.min(Math.max((cell % columns) + right, 0), columns - 1);
    refresh();
    return true;
  });
  at("view").addEventListener("change", refresh);
  at("strength").addEventListener("input", refresh);
  start(prepare, (loaded) => {
    picture = loaded;
    refresh();
  });
})();
