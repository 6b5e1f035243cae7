// One site in the list: its line, its placements when it is open, and a placement's details when they are asked for.

import { SIGNS, WORDS, asked, basis, count, many, place, rate, time, words, worst } from "./text.js";

/** An element. Text only ever comes as text: names and messages are not ours. */
export function element(tag, kind, ...children) {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  made.append(...children);
  return made;
}

const copy = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);

function say(parent, kind, text) {
  const found = parent.querySelector(`.${kind}`);
  if (found.textContent !== text) found.textContent = text;
  return found;
}

function mark(parent, state) {
  const found = say(parent, "mark", SIGNS[state]);
  found.title = WORDS[state];
  found.setAttribute("role", "img");
  found.setAttribute("aria-label", WORDS[state]);
}

export class SiteRow {
  #rows = new Map();

  constructor(site) {
    this.element = copy("site-row");
    this.details = this.element.querySelector("details");
    this.details.addEventListener("toggle", () => this.#drawPlacements());
    this.update(site);
  }

  update(site) {
    this.site = site;
    this.words = words(site);
    this.state = worst(site);
    this.stale = false;
    this.shown = site.placements.map(() => true);
    this.#drawLine();
    this.#drawPlacements();
  }

  /** Hides what is not asked for; tells whether anything is left. */
  filter(terms) {
    const shown = asked(this.words, terms);
    this.element.hidden = shown === null;
    if (shown && shown.some((one, i) => one !== this.shown[i])) {
      this.shown = shown;
      this.#drawPlacements();
    }
    return shown !== null;
  }

  #drawLine() {
    const { site, state } = this;
    const line = this.element.querySelector("summary");
    this.element.dataset.state = state;
    mark(line, state);
    say(line, "name", site.name);
    const fine = site.placements.filter((placement) => placement.state === "fine").length;
    say(line, "tally", `${fine}/${site.placements.length}`).title = "models that are fine, of all at the site";
    say(line, "link", site.roundTrip ? time(site.roundTrip.p99Us ?? site.roundTrip.p50Us) : "–").title = linkText(site);
    const first = site.placements.find((placement) => placement.state === state && state !== "fine");
    const news = site.connected || state === "down" ? first && `${first.model}: ${first.message}` : site.silence ?? "no contact";
    say(line, "news", news ?? "").title = news ?? "";
    line.querySelector(".strip").style.backgroundImage = strip(site.placements);
  }

  #drawPlacements() {
    if (!this.details.open) return;
    say(this.element, "facts", facts(this.site));
    const list = this.element.querySelector(".placements");
    const keys = new Set(this.site.placements.map((placement) => placement.key));
    for (const [key, row] of this.#rows) {
      if (!keys.has(key)) {
        row.element.remove();
        this.#rows.delete(key);
      }
    }
    const rows = this.site.placements.map((placement, i) => {
      const row = this.#rows.get(placement.key) ?? new PlacementRow();
      this.#rows.set(placement.key, row);
      row.update(placement);
      row.element.hidden = !this.shown[i];
      return row.element;
    });
    arrange(list, rows);
    this.element.querySelector(".titles").hidden = rows.length === 0;
  }
}

/** Brings children into order, and moves only those that are out of it. */
export function arrange(list, elements) {
  const focused = document.activeElement;
  let at = list.firstElementChild;
  for (const one of elements) {
    if (one === at) at = at.nextElementSibling;
    else list.insertBefore(one, at);
  }
  if (focused !== document.activeElement && list.contains(focused)) focused.focus({ preventScroll: true });
}

/** One stripe per placement, the worst first, in one background. */
function strip(placements) {
  const width = 100 / placements.length;
  const stops = placements.map(({ state }, i) => `var(--${state}) ${i * width}% ${(i + 1) * width}%`);
  return stops.length ? `linear-gradient(to right, ${stops.join(", ")})` : "none";
}

function linkText({ roundTrip }) {
  if (!roundTrip) return "the round trip to the cloud is not known yet";
  const p99 = roundTrip.p99Us == null ? "" : `, p99 ${time(roundTrip.p99Us)}`;
  return `round trip to the cloud: p50 ${time(roundTrip.p50Us)}${p99} (${basis(roundTrip.basis)})`;
}

function facts(site) {
  const uplink = site.uplinkBits == null ? [] : [`uplink ${rate(site.uplinkBits)} (${basis(site.uplinkBasis)})`];
  const nodes = site.nodes.map(({ name, ready, class: kind }) => `${name}${kind ? ` ${kind}` : ""}${ready ? "" : " not ready"}`);
  const marks = [...(site.paused ? ["paused"] : []), ...(site.cloudOnly ? ["served from the cloud only"] : [])];
  return [`fleet ${site.fleet}`, ...marks, linkText(site), ...uplink, nodes.join(", ") || "no node"].join("  ·  ");
}

class PlacementRow {
  #revision;

  constructor() {
    this.element = copy("placement-row");
    this.button = this.element.querySelector("button");
    this.panel = this.element.querySelector(".details");
    this.button.addEventListener("click", () => this.#toggle());
  }

  update(placement) {
    this.placement = placement;
    const { state, budgetUs, observedUs, predictedUs } = placement;
    this.element.dataset.state = state;
    mark(this.button, state);
    say(this.button, "model", placement.model);
    say(this.button, "place", place(placement));
    say(this.button, "waited", time(observedUs)).title = "p99 that clients waited in the last five minutes";
    say(this.button, "predicted", time(predictedUs)).title = `p99 as predicted; the least trusted part of it is ${basis(placement.basis) || "not known"}`;
    say(this.button, "limit", time(budgetUs));
    say(this.button, "why", placement.message).title = placement.reason;
    bar(this.button.querySelector(".bar"), placement);
    if (!this.panel.hidden && placement.revision !== this.#revision) this.#load();
  }

  #toggle() {
    this.panel.hidden = !this.panel.hidden;
    this.button.setAttribute("aria-expanded", String(!this.panel.hidden));
    if (!this.panel.hidden) this.#load();
  }

  async #load() {
    const { key, revision } = this.placement;
    this.#revision = revision;
    try {
      const answer = await fetch(`placements/${key.split("/").map(encodeURIComponent).join("/")}`);
      if (!answer.ok) throw new Error(await answer.text());
      const told = await answer.json();
      if (this.#revision === revision) this.panel.replaceChildren(...drawDetails(this.placement, told));
    } catch (error) {
      this.#revision = undefined;
      this.panel.replaceChildren(element("p", "failed", `its details cannot be had: ${error.message}`));
    }
  }
}

/** The budget stands at two thirds of every bar, so that bars can be compared. */
function bar(found, { budgetUs, observedUs, predictedUs }) {
  const share = (us) => `${Math.min(100, ((us / budgetUs) * 200) / 3)}%`;
  const us = observedUs ?? predictedUs;
  found.style.visibility = budgetUs ? "visible" : "hidden";
  found.classList.toggle("estimate", observedUs == null);
  found.classList.toggle("exceeds", us > budgetUs);
  found.querySelector(".fill").style.width = us == null ? "0" : share(us);
  const guess = found.querySelector(".guess");
  guess.hidden = observedUs == null || predictedUs == null;
  if (!guess.hidden) guess.style.left = share(predictedUs);
}

function drawDetails(placement, told) {
  const parts = [];
  if (told.predicted) parts.push(...drawTerms(placement, told.predicted));
  const facts = [told.version, ...(told.replicas > 1 ? [many(told.replicas, "replica")] : [])];
  if (told.cost) facts.push(`${told.cost} points/h`);
  if (told.since) facts.push(`here since ${told.since.replace("T", " ").replace("Z", " UTC")}`);
  if (told.observed) {
    const { p50Us, count: answers, errors, rps } = told.observed;
    facts.push(`${count(answers)} answers in five minutes, ${rps}/s, p50 ${time(p50Us)}, ${many(errors, "error")}`);
  }
  parts.push(element("p", "facts", facts.join("  ·  ")));
  const said = told.conditions.filter(({ type, status }) => type !== "Ready" && status !== "True" || type === "Placed" || type === "Reconciling");
  parts.push(rows("What is said", said.map(({ type, status, reason, message }) => [`${type}=${status}`, reason, message])));
  parts.push(rows("Not chosen", told.rejected.map(({ candidate, reason, message }) => [candidate, reason, message])));
  return parts;
}

/** The four terms of the prediction, as long as their p99. */
function drawTerms(placement, { terms, p99Us, boundUs, basis: least }) {
  const line = element("div", "terms");
  line.setAttribute("aria-hidden", "true");
  for (const term of terms) {
    const part = element("i", `term ${term.name}`);
    part.style.flexGrow = String(term.p99Us ?? 0);
    line.append(part);
  }
  const named = terms.map((term) =>
    element("li", `term ${term.name}`, `${term.name} `, element("b", "", time(term.p99Us)), ` ${basis(term.basis)}`));
  const head = `predicted p99 ${time(p99Us)} of ${time(placement.budgetUs)}, bound ${time(boundUs)} (${basis(least)})`;
  return [element("p", "prediction", head), line, element("ul", "legend", ...named)];
}

function rows(title, lines) {
  if (!lines.length) return "";
  const drawn = lines.map(([what, reason, message]) =>
    element("tr", "", element("th", "", what), element("td", "reason", reason), element("td", "", message)));
  return element("table", "said", element("caption", "", title), element("tbody", "", ...drawn));
}
