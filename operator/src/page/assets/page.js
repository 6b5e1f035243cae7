// Hears what changed, and draws that.

import { SiteRow, arrange, element } from "./site.js";
import { STATES, SIGNS, WORDS, byName, byTrouble, count, many, time } from "./text.js";

const find = (id) => document.getElementById(id);
const [list, filter, live, totals, fleets, models] = ["list", "filter", "live", "totals", "fleets", "models"].map(find);

/** So few sites are shown open. */
const FEW = 4;

const sites = new Map();
let head = { fleets: [], models: [] };
let whole = false;
let drawing = false;

// One drawing for all that comes within a frame; hidden pages draw too, seldom.
function draw() {
  if (drawing) return;
  drawing = true;
  setTimeout(() => {
    drawing = false;
    drawAll();
  }, 60);
}

function drawAll() {
  const terms = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...sites.values()].sort((one, other) => byTrouble(one.site, other.site));
  arrange(list, rows.map((row) => row.element));
  const shown = rows.filter((row) => row.filter(terms)).length;
  find("shown").textContent = terms.length ? `${count(shown)} of ${count(rows.length)}` : rows.length ? count(rows.length) : "";
  const nothing = find("nothing");
  nothing.hidden = shown > 0;
  if (whole) nothing.textContent = rows.length ? "nothing matches the filter" : "there is no site yet: an EdgeFleet says which nodes are the edge";
  drawTotals(rows);
  drawFleets(rows);
  drawModels();
}

function drawTotals(rows) {
  const placements = rows.flatMap((row) => row.site.placements);
  const tell = (word, sign, number, of, title) => ({ word, sign, number, of, title });
  const state = (name) => tell(`is:${name}`, SIGNS[name], placements.filter((one) => one.state === name).length, name, WORDS[name]);
  const tier = (name, where) => tell(`is:${name}`, "", placements.filter((one) => one.tier?.toLowerCase() === name).length, where, `placements served ${where}`);
  const connected = rows.filter((row) => row.site.connected).length;
  const all = [
    tell("", "", `${count(connected)}/${count(rows.length)}`, "connected", "sites with contact, of all"),
    ...STATES.map(state), tier("edge", "at the edge"), tier("cloud", "in the cloud"),
  ];
  keep(totals, all, ({ word }) => word, (found, { word, sign, number, of, title }) => {
    found.dataset.state = word.slice(3);
    found.dataset.none = String(number === 0);
    found.title = title;
    found.setAttribute("aria-pressed", String(word !== "" && filter.value === word));
    found.replaceChildren(element("b", "", typeof number === "number" ? count(number) : number), element("span", "", `${sign} ${of}`.trim()));
  }, (word) => {
    const made = element("button", "total");
    made.type = "button";
    made.addEventListener("click", () => setFilter(filter.value === word ? "" : word));
    return made;
  });
}

function drawFleets(rows) {
  const known = head.fleets.map((fleet) => fleet.name);
  const others = [...new Set(rows.map((row) => row.site.fleet))].filter((name) => !known.includes(name));
  const all = [...head.fleets, ...others.map((name) => ({ name, cloudNodes: 0, trouble: { message: "there is no such EdgeFleet any more" } }))];
  keep(fleets, all, ({ name }) => name, (found, { name, cloudNodes, trouble }) => {
    const mine = rows.filter((row) => row.site.fleet === name);
    const [title, , squares, told] = found.children;
    title.textContent = name;
    found.children[1].textContent = `${many(mine.length, "site")}, ${many(mine.reduce((sum, row) => sum + row.site.nodes.length, 0), "edge node")}, ${many(cloudNodes, "cloud node")}`;
    told.textContent = trouble?.message ?? "";
    squares.classList.toggle("few", mine.length <= 60);
    keep(squares, mine.map((row) => row.site).sort(byName), (site) => site.name, drawSquare, () => element("i", "square"));
  }, () => element("section", "fleet", element("h2", ""), element("p", "facts"), map(), element("p", "failed")));
}

/** For the eye and the mouse; the list says the same to everybody. */
function map() {
  const made = element("div", "map");
  made.setAttribute("aria-hidden", "true");
  made.addEventListener("click", ({ target }) => {
    const row = sites.get(target.dataset.name);
    if (!row) return;
    if (row.element.hidden) setFilter("");
    row.details.open = true;
    row.element.scrollIntoView({ block: "center" });
  });
  return made;
}

function drawSquare(found, site) {
  const { state } = sites.get(site.name);
  if (found.dataset.state === state) return;
  found.dataset.name = site.name;
  found.dataset.state = state;
  found.title = `${site.name}: ${WORDS[state]}`;
}

function drawModels() {
  models.hidden = head.models.length === 0;
  keep(models.querySelector("tbody"), head.models, (model) => model.name, (found, model) => {
    const [name, serving, edge, cloud, budget] = found.children;
    const told = model.suspended ? "suspended" : model.trouble?.message;
    found.dataset.state = model.trouble ? "down" : "fine";
    const button = name.querySelector("button");
    button.textContent = model.name;
    button.title = [model.version, model.floor && `accuracy at least ${model.floor}`].filter(Boolean).join(", ");
    name.querySelector("span").textContent = told ?? "";
    serving.textContent = model.sites?.serving ?? "–";
    edge.textContent = count(model.sites?.edge ?? 0);
    cloud.textContent = count(model.sites?.cloud ?? 0);
    budget.textContent = time(model.budgetUs);
  }, (name) => {
    const button = element("button", "");
    button.type = "button";
    button.addEventListener("click", () => setFilter(filter.value === name ? "" : name));
    const cell = element("th", "", button, element("span", "failed"));
    cell.scope = "row";
    return element("tr", "", cell, ...[1, 2, 3, 4].map(() => element("td", "")));
  });
}

/** One child per value, by key; those that stay are kept. */
function keep(parent, values, key, update, make) {
  const kept = (parent.kept ??= new Map());
  const keys = new Set(values.map(key));
  for (const [name, child] of kept) {
    if (!keys.has(name)) {
      child.remove();
      kept.delete(name);
    }
  }
  const children = values.map((value) => {
    const name = key(value);
    if (!kept.has(name)) kept.set(name, make(name));
    update(kept.get(name), value);
    return kept.get(name);
  });
  arrange(parent, children);
}

function setFilter(text) {
  filter.value = text;
  filtered();
}

function filtered() {
  history.replaceState(null, "", filter.value ? `#${encodeURIComponent(filter.value)}` : location.pathname);
  drawAll();
}

function put(site) {
  const row = sites.get(site.name);
  if (row) row.update(site);
  else sites.set(site.name, new SiteRow(site));
}

function remove(name) {
  sites.get(name)?.element.remove();
  sites.delete(name);
}

/** What the address asks for; a hash that is no text asks for nothing. */
function wish() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return "";
  }
}

function listen() {
  const events = new EventSource("events");
  const tell = (word) => {
    live.textContent = word;
    live.dataset.live = String(word === "live");
  };
  // From the beginning: what is not told now is no more.
  events.addEventListener("open", () => {
    for (const row of sites.values()) row.stale = true;
  });
  events.addEventListener("head", ({ data }) => (head = JSON.parse(data)));
  events.addEventListener("site", ({ data }) => put(JSON.parse(data)));
  events.addEventListener("gone", ({ data }) => remove(data));
  events.addEventListener("whole", () => {
    for (const [name, row] of sites) if (row.stale) remove(name);
    if (!whole && sites.size <= FEW) for (const row of sites.values()) row.details.open = true;
    whole = true;
    tell("live");
    draw();
  });
  events.addEventListener("error", () => {
    tell("no contact to the operator");
    // A browser gives up on an answer that is no stream, such as that of a full house.
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
  });
}

filter.value = wish();
filter.addEventListener("input", filtered);
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== filter) {
    event.preventDefault();
    filter.focus();
  }
  if (event.key === "Escape" && document.activeElement === filter) setFilter("");
});
listen();
