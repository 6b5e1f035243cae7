// Words, numbers and order: values in, values out.

/** How a model or a site is, the worst first, and the sign that says it without colour. */
export const STATES = ["down", "silent", "over", "coming", "fine"];
export const SIGNS = { down: "✕", silent: "?", over: "▲", coming: "…", fine: "●" };
export const WORDS = {
  down: "down: without a place, or without an answer",
  silent: "silent: the site has no contact",
  over: "over: answers, but not within its budget",
  coming: "coming: on its way",
  fine: "fine",
};

/** Two digits, as everywhere in Sconce: jitter changes no number. */
function twoDigits(number) {
  if (number < 100) return Math.round(number);
  const unit = 10 ** (Math.floor(Math.log10(number)) - 1);
  return Math.round(number / unit) * unit;
}

const plain = (number) => String(Number(number.toPrecision(6)));

/** `0.36 ms`, `42 ms`, `1.2 s`. */
export function time(us) {
  if (us == null) return "–";
  const rounded = twoDigits(us);
  return rounded < 1e6 ? `${plain(rounded / 1e3)} ms` : `${plain(rounded / 1e6)} s`;
}

/** `10 Mbit/s`. */
export function rate(bits) {
  const rounded = twoDigits(bits);
  const step = Math.min(3, Math.max(0, Math.floor(Math.log10(Math.max(rounded, 1)) / 3)));
  return `${plain(rounded / 1e3 ** step)} ${["bit/s", "kbit/s", "Mbit/s", "Gbit/s"][step]}`;
}

/** `1,280`. */
export const count = (number) => number.toLocaleString("en");

export const many = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

/** `Measured` as `measured`: where a number comes from. */
export const basis = (word) => (word ?? "").toLowerCase();

/** `edge/int8 on gw-a`, `cloud/f32`. */
export function place({ tier, node, variant }) {
  if (!tier) return "nowhere";
  const where = `${tier.toLowerCase()}/${variant}`;
  return tier === "Edge" && node ? `${where} on ${node}` : where;
}

export function worst(site) {
  const of = site.placements.map((placement) => placement.state);
  if (!site.connected) of.push("silent");
  return STATES.find((state) => of.includes(state)) ?? "fine";
}

const collator = new Intl.Collator("en", { numeric: true });
export const byName = (one, other) => collator.compare(one.name, other.name);

/** The worst first; of two that are as bad, the one where more is; else by name. */
export function byTrouble(one, other) {
  const [a, b] = [worst(one), worst(other)];
  const bad = (site, state) => site.placements.filter((placement) => placement.state === state).length;
  return STATES.indexOf(a) - STATES.indexOf(b) || (a === "fine" ? 0 : bad(other, b) - bad(one, a)) || byName(one, other);
}

/** What a site, and each of its placements, is found by. */
export function words(site) {
  const marks = [site.connected ? "" : "is:silent", site.paused ? "is:paused" : "", site.cloudOnly ? "is:cloudonly" : ""];
  const own = [site.name, site.fleet, ...site.nodes.map((node) => node.name), ...marks].join(" ").toLowerCase();
  const placed = site.placements.map((p) =>
    [own, p.model, p.node, p.variant, `is:${p.tier ?? "nowhere"}`, `is:${p.state}`, p.reason].join(" ").toLowerCase());
  return { own, placed };
}

/** Which placements of a site are asked for; `null` = not even the site. */
export function asked({ own, placed }, terms) {
  const has = (text) => terms.every((term) => text.includes(term));
  if (has(own)) return placed.map(() => true);
  const found = placed.map(has);
  return found.includes(true) ? found : null;
}
