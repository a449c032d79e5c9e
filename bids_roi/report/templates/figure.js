"use strict";
// Names and values under the pointer, in a figure that is opened by itself.
(async () => {
  const root = document.documentElement;
  const about = JSON.parse(root.querySelector("metadata").textContent);
  const said = root.querySelector("#said");
  const cross = root.querySelector("#cross");
  const pixels = async (href) => {
    const image = new Image();
    image.src = href;
    await image.decode();
    const canvas = document.createElementNS("http://www.w3.org/1999/xhtml", "canvas");
    [canvas.width, canvas.height] = [image.width, image.height];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, image.width, image.height);
  };
  const colour = ({data, width}, column, row) =>
    [...data.subarray(4 * (row * width + column), 4 * (row * width + column) + 4)];
  const spell = (value) => value.toFixed(2).replace("-", "\u2212");

  // A matrix: its values are where its colours are in the bar beside it.
  const matrix = async () => {
    const [cells, bar] = await Promise.all([...root.querySelectorAll("image")].slice(0, 2)
      .map((image) => pixels(image.getAttribute("href"))));
    const values = new Map();
    for (let row = 0; row < bar.height; row++) {
      const share = (row + 0.5) / bar.height;
      values.set(colour(bar, 0, row).join(), about.high + share * (about.low - about.high));
    }
    const name = (cell) => {
      const [first, last] = [cell * about.size, Math.min((cell + 1) * about.size, about.names.length) - 1];
      return first === last ? about.names[first] : `${about.names[first]} to ${about.names[last]}`;
    };
    return (column, row) => {
      const value = values.get(colour(cells, column, row).join());
      const words = value !== undefined ? spell(value) : row === column ? "itself" : "n/a";
      return `${name(row)} \u2013 ${name(column)}: ${words}`;
    };
  };

  // Slices: which region a voxel belongs to is in rasters of their own, a byte in each.
  const slices = async (plane) => {
    const bytes = await Promise.all(plane.regions.map(pixels));
    return (column, row) => {
      const region = bytes.reduce((sum, each, n) => sum + colour(each, column, row)[0] * 256 ** n, 0);
      return region ? about.names[region - 1] : "";
    };
  };

  const panels = await Promise.all(about.panels.map(async (panel) => (
    {...panel, tell: await (about.kind === "matrix" ? matrix() : slices(panel))})));
  let at = null;
  const show = () => {
    const {panel, column, row} = at;
    const [left, top, wide, high] = panel.box;
    const [x, y] = [left + (column + 0.5) * wide / panel.columns, top + (row + 0.5) * high / panel.rows];
    said.textContent = panel.tell(column, row);
    cross.setAttribute("d", about.kind === "matrix" ? `M${left},${y}H${left + wide}M${x},${top}V${top + high}` : "");
  };
  const point = (event) => {
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(root.getScreenCTM().inverse());
    for (const panel of panels) {
      const [left, top, wide, high] = panel.box;
      const column = Math.floor((place.x - left) / wide * panel.columns);
      const row = Math.floor((place.y - top) / high * panel.rows);
      if (column < 0 || row < 0 || column >= panel.columns || row >= panel.rows) continue;
      at = {panel, column, row};
      show();
      return;
    }
    said.textContent = "";
    cross.setAttribute("d", "");
  };
  root.addEventListener("pointermove", point);
  root.addEventListener("pointerdown", point);
  const steps = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
  root.addEventListener("keydown", (event) => {
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    at = at || {panel: panels[0], column: 0, row: 0};
    at.column = Math.min(at.panel.columns - 1, Math.max(0, at.column + step[0]));
    at.row = Math.min(at.panel.rows - 1, Math.max(0, at.row + step[1]));
    show();
  });
  root.setAttribute("tabindex", "0");
  root.dataset.ready = "";
})();
