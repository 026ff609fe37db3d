"use strict";

// Theme: follows the system until the reader chooses.
const root = document.documentElement;
const toggle = document.querySelector(".theme");
const system = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
const nameToggle = () => { toggle.textContent = isDark() ? "Light" : "Dark"; toggle.ariaLabel = `Use ${toggle.textContent.toLowerCase()} colours`; };
toggle.hidden = false;
toggle.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; nameToggle(); });
system.addEventListener("change", nameToggle);
nameToggle();

// Heat maps: a cursor over the cell under the pointer or the keyboard, and a note that tells its verdict.
// Client ids and reasons are hostile input: they only ever become text, never markup.
const tip = document.querySelector(".tip");

function element(name, text) {
  const node = document.createElement(name);
  node.textContent = text;
  return node;
}

function tell(map, row, column) {
  const status = map.statuses["abcdefgh".indexOf(map.status[row][column])];
  const parts = [element("b", map.clients[row]),
    element("p", `${map.truth[row]} · round ${map.columns[column]} · ${status || "did not take part"}`)];
  const detail = column >= map.first && map.details[column - map.first][row];
  if (detail) {
    const [weight, reason, ...values] = detail;
    if (map.reasons[reason]) parts.push(element("p", map.reasons[reason]));
    const list = document.createElement("dl");
    [["weight", weight], ...map.channels.map((name, i) => [name.replaceAll("_", " "), values[i]])].forEach(([name, value]) => {
      if (value !== null) list.append(element("dt", name), element("dd", String(value).replace("-", "\u2212")));
    });
    parts.push(list);
  }
  tip.replaceChildren(...parts);
}

for (const region of document.querySelectorAll(".heat")) {
  const map = JSON.parse(document.getElementById(region.dataset.source).textContent);
  const picture = region.querySelector("svg");
  const cursor = region.querySelector(".cursor");
  const last = { row: map.tops.length - 1, column: map.columns.length - 1 };
  let row = 0;
  let column = last.column;

  const show = (scroll) => {
    const scale = picture.getBoundingClientRect().width / map.width;
    const place = (property, value) => { cursor.style[property] = `${value * scale}px`; };
    place("left", map.left + column * map.cell - 1);
    place("top", map.tops[row] - 1);
    place("width", Math.max(map.cell, 4) + 2);
    place("height", map.row + 2);
    cursor.hidden = false;
    if (scroll) cursor.scrollIntoView({ block: "nearest", inline: "nearest" });
    tell(map, row, column);
    tip.hidden = false;
    const cell = cursor.getBoundingClientRect();
    const box = tip.getBoundingClientRect();
    const left = Math.min(cell.left, innerWidth - box.width - 12);
    const below = cell.bottom + 8;
    const top = below + box.height > innerHeight && cell.top > box.height + 8 ? cell.top - box.height - 8 : below;
    tip.style.left = `${Math.max(left, 12) + scrollX}px`;
    tip.style.top = `${top + scrollY}px`;
  };
  const hide = () => { cursor.hidden = tip.hidden = true; };

  region.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const x = (event.clientX - box.left) * map.width / box.width;
    const y = (event.clientY - box.top) * map.width / box.width;
    const c = Math.floor((x - map.left) / map.cell);
    const r = map.tops.findIndex((top) => y >= top && y < top + map.row);
    if (r < 0 || c < 0 || c > last.column) return hide();
    [row, column] = [r, c];
    return show(false);
  });
  region.addEventListener("pointerleave", hide);
  region.addEventListener("blur", hide);
  region.addEventListener("focus", () => { if (region.matches(":focus-visible")) show(true); });
  region.addEventListener("keydown", (event) => {
    const steps = {
      ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0],
      PageUp: [-10, 0], PageDown: [10, 0], Home: [0, -Infinity], End: [0, Infinity],
    };
    if (event.key === "Escape") return hide();
    const step = steps[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return undefined;
    event.preventDefault();
    row = Math.min(Math.max(row + step[0], 0), last.row);
    column = Math.min(Math.max(column + step[1], 0), last.column);
    return show(true);
  });
}
