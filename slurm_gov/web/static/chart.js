// The last hours of a pool: what was used within quota, borrowed, free, not healthy; below, what waiting jobs ask for.

import { html, nothing, svg } from "./lit-html.js";
import { clock, count, plain, span } from "./words.js";

const WIDTH = 600, HEIGHT = 120, WAIT = 34, GAP = 12;
const LAYERS = ["within", "borrowed", "without", "free", "away"];
const NAMES = ["within quota", "borrowed", "no team", "free", "not healthy"];
const chosen = new Map(); // pool: time that the reader points at

export function chart(pool, history, row, now, step) {
  const all = Object.entries(history).map(([at, figures]) => ({ at: +at, figures })).sort((a, b) => a.at - b.at);
  if (all.length < 2) return html`<p class="empty chart-empty">The chart of the last hours begins in a minute.</p>`;
  const end = now, begin = Math.max(end - 6 * 3600, Math.min(all[0].at, end - 120));
  const top = Math.max(1, row.total, ...all.map(({ figures: f }) => f[0] + f[1] + f[2] + f[3] + f[4]));
  const asked = Math.max(1, ...all.map(({ figures: f }) => f[5]));
  const x = (at) => ((at - begin) / (end - begin)) * WIDTH;
  const y = (gpus) => HEIGHT - (gpus / top) * HEIGHT;
  // Where nothing was seen for long there is a gap, not a line that pretends.
  const runs = [];
  for (const sample of all) {
    const last = runs.at(-1)?.at(-1);
    if (!last || sample.at - last.at > 4 * step) runs.push([]);
    runs.at(-1).push(sample);
  }
  const steps = (run, from, to) => {
    const last = Math.min(end, run.at(-1).at + step);
    const up = [], down = [];
    run.forEach((sample, i) => {
      const right = i + 1 < run.length ? run[i + 1].at : last;
      up.push(`${x(sample.at).toFixed(1)},${to(sample).toFixed(1)}`, `${x(right).toFixed(1)},${to(sample).toFixed(1)}`);
      down.push(`${x(sample.at).toFixed(1)},${from(sample).toFixed(1)}`, `${x(right).toFixed(1)},${from(sample).toFixed(1)}`);
    });
    return `M${up.join("L")}L${down.reverse().join("L")}Z`;
  };
  const sum = (figures, n) => figures.slice(0, n).reduce((a, b) => a + b, 0);
  const base = HEIGHT + GAP + WAIT;
  const point = chosen.get(pool);
  const at = point === undefined ? all.at(-1) : all.reduce((a, b) => (Math.abs(b.at - point) < Math.abs(a.at - point) ? b : a));
  const move = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    chosen.set(pool, begin + ((event.clientX - box.left) / box.width) * (end - begin));
    event.currentTarget.dispatchEvent(new CustomEvent("again", { bubbles: true }));
  };
  const leave = (event) => {
    chosen.delete(pool);
    event.currentTarget.dispatchEvent(new CustomEvent("again", { bubbles: true }));
  };
  const key = (event) => {
    if (event.key === "Escape") return leave(event);
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 }[event.key];
    if (!by) return undefined;
    event.preventDefault();
    chosen.set(pool, all[Math.min(all.length - 1, Math.max(0, all.indexOf(at) + by))].at);
    event.currentTarget.dispatchEvent(new CustomEvent("again", { bubbles: true }));
    return undefined;
  };
  return html`<figure class="chart">
    <figcaption><b>last ${span(end - begin)}</b>
      <span class="at">${point === undefined ? "now" : clock(at.at, now, false)}:
        ${at.figures.slice(0, 5).map((gpus, i) => (gpus || i < 2 ? html`<span class="k"><i class="l-${LAYERS[i]}"></i>${NAMES[i]} ${gpus.toLocaleString("en")}</span>` : nothing))}
        <span class="k"><i class="l-waiting"></i>asked for ${at.figures[5].toLocaleString("en")}</span></span></figcaption>
    <svg viewBox="0 0 ${WIDTH} ${base}" preserveAspectRatio="none" tabindex="0" role="img"
      aria-label=${`${plain(pool)} in the last ${span(end - begin)}: ${LAYERS.map((_, i) => `${NAMES[i]} ${at.figures[i]}`).join(", ")}, asked for by waiting jobs ${at.figures[5]}. Arrow keys move through time.`}
      @pointermove=${move} @pointerleave=${leave} @blur=${leave} @keydown=${key}>
      ${LAYERS.map((name, i) => svg`<path class="l-${name}" d=${runs.map((run) => steps(run, (s) => y(sum(s.figures, i)), (s) => y(sum(s.figures, i + 1)))).join("")}></path>`)}
      <path class="l-waiting" d=${runs.map((run) => steps(run, () => base, (s) => base - (s.figures[5] / asked) * WAIT)).join("")}></path>
      ${point === undefined ? nothing : svg`<line class="cursor" x1=${x(at.at)} x2=${x(at.at)} y1="0" y2=${base}></line>`}
    </svg>
    <div class="axis" aria-hidden="true"><span>${clock(begin, now, false)}</span><span>${clock((begin + end) / 2, now, false)}</span><span>now</span></div>
    <div class="scale" aria-hidden="true"><span>${count(top, "GPU")}</span><span>asked for: up to ${count(asked, "GPU")}</span></div>
  </figure>`;
}
