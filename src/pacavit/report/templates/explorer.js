(() => {
  const { at, bar, bytes, draw, frame, heat, onArrows, paint, percent, start, tile } = explorer;
  const shownClusters = 12;
  const canvas = at("canvas");
  let image, stage, picture, patch = 0;

  // Rows of bytes, each relative to its largest value, become rows that sum to 1.
  function rows(text, count) {
    const flat = bytes(text), length = flat.length / count;
    return Array.from({ length: count }, (_, index) => {
      const row = Array.from(flat.subarray(index * length, (index + 1) * length));
      const sum = row.reduce((total, value) => total + value, 0) || 1;
      return row.map((value) => value / sum);
    });
  }

  function unpack(packed) {
    if (packed.attention) return packed;
    packed.patches = packed.grid[0] * packed.grid[1];
    packed.weights = rows(packed.weightBytes, packed.clusters);
    packed.attention = rows(packed.attentionBytes, packed.patches);
    return packed;
  }

  // Patches lie at stage.box, a part of the picture; beyond image.seen the network did not look.
  const ofPatches = (color, smooth) => ({
    small: paint(stage.grid, color), box: stage.box, seen: image.seen, smooth,
  });

  function mixture(row) {
    const values = new Array(stage.patches).fill(0);
    row.forEach((part, cluster) => {
      if (part) stage.weights[cluster].forEach((weight, index) => (values[index] += part * weight));
    });
    return values;
  }

  function layer() {
    const view = at("view").value;
    const map = image.maps.find((entry) => entry.name === view);
    if (map) {
      const small = paint(map.size, heat(bytes(map.bytes)));
      return { small, box: image.seen, seen: image.seen, smooth: true };
    }
    if (view === "partition") {
      return ofPatches((index) => {
        const cluster = stage.partition[index];
        return cluster < 0 ? [0, 0, 0, 0] : [...stage.colors[cluster], 255];
      }, false);
    }
    return ofPatches(heat(mixture(stage.attention[patch])), true);
  }

  function refresh() {
    draw(canvas, picture, layer(), at("strength").value / 100);
    if (!stage) return;
    const [height, width] = stage.grid, row = Math.floor(patch / width), column = patch % width;
    const cell = [stage.box[3] * canvas.width / width, stage.box[2] * canvas.height / height];
    const x = stage.box[1] * canvas.width + column * cell[0];
    const y = stage.box[0] * canvas.height + row * cell[1];
    frame(canvas, x, y, cell[0], cell[1]);
    at("patch").textContent = `Patch in row ${row + 1}, column ${column + 1} attends to`;
    const attended = stage.attention[patch];
    const order = attended.map((_, cluster) => cluster).sort((a, b) => attended[b] - attended[a]);
    at("clusters").replaceChildren(...order.slice(0, shownClusters).map((cluster) => {
      const item = document.createElement("li"), text = document.createElement("p");
      const small = tile(canvas, picture, ofPatches(heat(stage.weights[cluster]), true));
      text.className = "soft";
      text.textContent = `${percent(stage.importance[cluster])} of the importance`;
      const fraction = attended[cluster];
      item.append(small, bar(`cluster ${cluster}: ${percent(fraction)}`, fraction), text);
      return item;
    }));
  }

  function chooseStage() {
    stage = image.stages.length ? unpack(image.stages[at("stage").value]) : null;
    if (!stage) return refresh();
    const [height, width] = stage.grid;
    // The patch that counts most in the most important cluster is a good place to begin.
    const best = stage.importance.indexOf(Math.max(...stage.importance));
    patch = stage.weights[best].indexOf(Math.max(...stage.weights[best]));
    patch = Math.min(Math.max(patch, 0), height * width - 1);
    refresh();
  }

  function prepare(chosen) {
    image = chosen;
    at("border").hidden = !image.border;
    const option = (value, text) => new Option(text, value);
    const view = at("view").value;
    at("view").replaceChildren(...image.maps.map((map) => option(map.name, map.title)));
    if (image.stages.length) {
      at("view").append(option("partition", "partition"), option("patch", "what the patch attends to"));
    }
    if ([...at("view").options].some((entry) => entry.value === view)) at("view").value = view;
    at("stage").replaceChildren(...image.stages.map((entry, n) => option(n, entry.stage)));
    at("stage").value = image.stages.length - 1;
  }

  function move(row, column) {
    const [height, width] = stage.grid;
    patch = Math.min(Math.max(row, 0), height - 1) * width + Math.min(Math.max(column, 0), width - 1);
    refresh();
  }

  canvas.addEventListener("click", (event) => {
    if (!stage) return;
    const x = event.offsetX / canvas.clientWidth, y = event.offsetY / canvas.clientHeight;
    const [top, left, tall, wide] = stage.box, [height, width] = stage.grid;
    move(Math.floor(((y - top) / tall) * height), Math.floor(((x - left) / wide) * width));
  });
  onArrows(canvas, (down, right) => {
    if (!stage) return false;
    const width = stage.grid[1];
    move(Math.floor(patch / width) + down, (patch % width) + right);
    return true;
  });
  at("view").addEventListener("change", refresh);
  at("strength").addEventListener("input", refresh);
  at("stage").addEventListener("change", chooseStage);
  start(prepare, (loaded) => {
    picture = loaded;
    chooseStage();
  });
})();
