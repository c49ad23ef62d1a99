"use strict";
(() => {
  const read = (name) => JSON.parse(document.getElementById(name).textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const at = (name) => document.getElementById("explorer-" + name);
  const { images, colors } = read("explorer-data");
  const palette = bytes(colors);
  const shownClusters = 12;
  const canvas = at("canvas"), context = canvas.getContext("2d");
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

  // A small picture with one pixel per patch.
  function paint(grid, color) {
    const small = document.createElement("canvas");
    [small.height, small.width] = grid;
    const data = new ImageData(grid[1], grid[0]);
    for (let index = 0; index < grid[0] * grid[1]; index++) data.data.set(color(index), 4 * index);
    small.getContext("2d").putImageData(data, 0, 0);
    return small;
  }

  const heat = (values) => {
    const most = Math.max(...values) || 1;
    return (index) => {
      const entry = 3 * Math.round((255 * values[index]) / most);
      return [palette[entry], palette[entry + 1], palette[entry + 2], 255];
    };
  };

  // Patches lie at stage.box, a part of the picture; beyond image.seen the network did not look.
  function draw(target, small, box, smooth, strength) {
    const pen = target.getContext("2d"), { width, height } = target;
    pen.imageSmoothingEnabled = false;
    pen.drawImage(picture, 0, 0, width, height);
    if (!small) return;
    pen.save();
    pen.beginPath();
    const [top, left, tall, wide] = image.seen;
    pen.rect(left * width, top * height, wide * width, tall * height);
    pen.clip();
    pen.globalAlpha = strength;
    pen.imageSmoothingEnabled = smooth;
    pen.imageSmoothingQuality = "high";
    pen.drawImage(small, box[1] * width, box[0] * height, box[3] * width, box[2] * height);
    pen.restore();
  }

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
      const values = Array.from(bytes(map.bytes));
      return [paint(map.size, heat(values)), image.seen, true];
    }
    if (view === "partition") {
      const color = (index) => {
        const cluster = stage.partition[index];
        return cluster < 0 ? [0, 0, 0, 0] : [...stage.colors[cluster], 255];
      };
      return [paint(stage.grid, color), stage.box, false];
    }
    return [paint(stage.grid, heat(mixture(stage.attention[patch]))), stage.box, true];
  }

  function refresh() {
    const strength = at("strength").value / 100;
    draw(canvas, ...(stage ? layer() : mapOnly()), strength);
    if (!stage) return;
    const [height, width] = stage.grid, row = Math.floor(patch / width), column = patch % width;
    const cell = [stage.box[3] * canvas.width / width, stage.box[2] * canvas.height / height];
    const x = stage.box[1] * canvas.width + column * cell[0];
    const y = stage.box[0] * canvas.height + row * cell[1];
    for (const [color, line] of [["#000", 4], ["#fff", 2]]) {
      context.strokeStyle = color;
      context.lineWidth = line;
      context.strokeRect(x, y, cell[0], cell[1]);
    }
    at("patch").textContent = `Patch in row ${row + 1}, column ${column + 1} attends to`;
    const attended = stage.attention[patch];
    const order = attended.map((_, cluster) => cluster).sort((a, b) => attended[b] - attended[a]);
    at("clusters").replaceChildren(...order.slice(0, shownClusters).map((cluster) => {
      const item = document.createElement("li"), small = document.createElement("canvas");
      [small.width, small.height] = [canvas.width, canvas.height];
      draw(small, paint(stage.grid, heat(stage.weights[cluster])), stage.box, true, 0.6);
      const bar = document.createElement("span"), text = document.createElement("p");
      bar.className = "bar";
      bar.style.setProperty("--share", attended[cluster]);
      const percent = (value) => `${(100 * value).toFixed(0)} %`;
      bar.textContent = `cluster ${cluster}: ${percent(attended[cluster])}`;
      text.className = "soft";
      text.textContent = `${percent(stage.importance[cluster])} of the importance`;
      item.append(small, bar, text);
      return item;
    }));
  }

  function mapOnly() {
    const map = image.maps.find((entry) => entry.name === at("view").value);
    return [paint(map.size, heat(Array.from(bytes(map.bytes)))), image.seen, true];
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

  function choose(index) {
    image = images[index];
    for (const button of document.querySelectorAll("[data-image]")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.image) === index));
    }
    at("title").textContent = `${image.name}: ${image.label}`;
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
    picture = new Image();
    picture.onload = () => {
      [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
      chooseStage();
    };
    picture.src = image.picture;
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
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const step = steps[event.key];
    if (!stage || !step) return;
    event.preventDefault();
    const width = stage.grid[1];
    move(Math.floor(patch / width) + step[0], (patch % width) + step[1]);
  });
  at("view").addEventListener("change", refresh);
  at("strength").addEventListener("input", refresh);
  at("stage").addEventListener("change", chooseStage);
  for (const button of document.querySelectorAll("[data-image]")) {
    button.addEventListener("click", () => choose(Number(button.dataset.image)));
  }
  document.getElementById("explorer").hidden = false;

  // Links to one image end in #image-N, counted from 1.
  function chooseLinked() {
    const linked = Number(location.hash.replace("#image-", ""));
    choose(images[linked - 1] ? linked - 1 : 0);
  }
  addEventListener("hashchange", chooseLinked);
  chooseLinked();
})();
