"use strict";
// What the explorers of all tasks have in common; each begins with explorer.start.
const explorer = (() => {
  const read = (name) => JSON.parse(document.getElementById(name).textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const at = (name) => document.getElementById("explorer-" + name);
  const data = read("explorer-data");
  const palette = bytes(data.colors);

  // A small picture with one pixel per cell.
  function paint(grid, color) {
    const small = document.createElement("canvas");
    [small.height, small.width] = grid;
    const pixels = new ImageData(grid[1], grid[0]);
    for (let index = 0; index < grid[0] * grid[1]; index++) pixels.data.set(color(index), 4 * index);
    small.getContext("2d").putImageData(pixels, 0, 0);
    return small;
  }

  const heat = (values) => {
    const most = values.reduce((one, other) => Math.max(one, other), 0) || 1;
    return (index) => {
      const entry = 3 * Math.round((255 * values[index]) / most);
      return [palette[entry], palette[entry + 1], palette[entry + 2], 255];
    };
  };

  // A layer is a small picture that lies at a box of the picture, and is visible inside another;
  // boxes are [top, left, height, width] in 0..1.
  function draw(target, picture, layer, strength) {
    const pen = target.getContext("2d"), { width, height } = target;
    pen.imageSmoothingEnabled = false;
    pen.drawImage(picture, 0, 0, width, height);
    if (!layer) return;
    const { small, box, seen, smooth } = layer;
    pen.save();
    pen.beginPath();
    pen.rect(seen[1] * width, seen[0] * height, seen[3] * width, seen[2] * height);
    pen.clip();
    pen.globalAlpha = strength;
    pen.imageSmoothingEnabled = smooth;
    pen.imageSmoothingQuality = "high";
    pen.drawImage(small, box[1] * width, box[0] * height, box[3] * width, box[2] * height);
    pen.restore();
  }

  // White lines with black edges around a rectangle.
  function frame(target, x, y, width, height) {
    const pen = target.getContext("2d");
    for (const [color, line] of [["#000", 4], ["#fff", 2]]) {
      pen.strokeStyle = color;
      pen.lineWidth = line;
      pen.strokeRect(x, y, width, height);
    }
  }

  // Lines where a mask on a grid begins or ends, which lies at a box of the picture.
  function outline(target, inside, [rows, columns], box) {
    const pen = target.getContext("2d"), left = box[1] * target.width, top = box[0] * target.height;
    const wide = (box[3] * target.width) / columns, tall = (box[2] * target.height) / rows;
    pen.beginPath();
    const at = (row, column) =>
      row >= 0 && row < rows && column >= 0 && column < columns && inside[row * columns + column];
    for (let row = 0; row <= rows; row++) {
      for (let column = 0; column <= columns; column++) {
        const x = left + column * wide, y = top + row * tall;
        if (Boolean(at(row, column)) !== Boolean(at(row - 1, column))) {
          pen.moveTo(x, y);
          pen.lineTo(x + wide, y);
        }
        if (Boolean(at(row, column)) !== Boolean(at(row, column - 1))) {
          pen.moveTo(x, y);
          pen.lineTo(x, y + tall);
        }
      }
    }
    for (const [color, line] of [["#000", 4], ["#fff", 2]]) {
      pen.strokeStyle = color;
      pen.lineWidth = line;
      pen.stroke();
    }
  }

  const percent = (value) => `${(100 * value).toFixed(0)} %`;

  function bar(text, fraction) {
    const found = document.createElement("span");
    found.className = "bar";
    found.style.setProperty("--share", fraction);
    found.textContent = text;
    return found;
  }

  // A small copy of the picture below a layer.
  function tile(canvas, picture, layer) {
    const small = document.createElement("canvas");
    [small.width, small.height] = [canvas.width, canvas.height];
    draw(small, picture, layer, 0.6);
    return small;
  }

  // Arrow keys call move(row, column) with steps.
  function onArrows(canvas, move) {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    canvas.addEventListener("keydown", (event) => {
      const step = steps[event.key];
      if (step && move(...step)) event.preventDefault();
    });
  }

  // prepare(image) is called when an image is chosen, show(picture) when it is loaded.
  function start(prepare, show) {
    const canvas = at("canvas");
    function choose(index) {
      const image = data.images[index], picture = new Image();
      for (const button of document.querySelectorAll("[data-image]")) {
        button.setAttribute("aria-pressed", String(Number(button.dataset.image) === index));
      }
      at("title").textContent = `${image.name}: ${image.label}`;
      prepare(image);
      picture.onload = () => {
        [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
        show(picture);
      };
      picture.src = image.picture;
    }
    for (const button of document.querySelectorAll("[data-image]")) {
      button.addEventListener("click", () => choose(Number(button.dataset.image)));
    }
    document.getElementById("explorer").hidden = false;
    // Links to one image end in #image-N, counted from 1.
    function chooseLinked() {
      const linked = Number(location.hash.replace("#image-", ""));
      choose(data.images[linked - 1] ? linked - 1 : 0);
    }
    addEventListener("hashchange", chooseLinked);
    chooseLinked();
  }

  return { at, bar, bytes, data, draw, frame, heat, onArrows, outline, paint, percent, start, tile };
})();
