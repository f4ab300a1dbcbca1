// The page: the parts in their places, drawn again after every event and, for what counts seconds, every second.

import { html, nothing, render } from "./lit-html.js";
import { preemptions, waiting } from "./jobs.js";
import { log } from "./log.js";
import { nodes } from "./nodes.js";
import { pools } from "./pools.js";
import { listen, now, store, trouble } from "./store.js";
import { clock, count, plain, span } from "./words.js";

const THEMES = ["auto", "light", "dark"];
let theme = new URLSearchParams(location.search).get("theme") ?? remembered();
let asked = false;

function remembered() {
  try {
    return localStorage.getItem("theme") ?? "auto";
  } catch {
    return "auto";
  }
}

function wear(name) {
  theme = THEMES.includes(name) ? name : "auto";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("theme", theme);
  } catch { /* no storage: it holds until the page is closed */ }
}

/** Draw again soon, once for all who ask. */
function again() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    draw();
  });
}

function draw() {
  const { doc } = store;
  const wrong = trouble();
  document.title = title(doc, wrong);
  document.body.classList.toggle("stale", wrong?.level === "bad");
  if (doc) delete doc.teamNames;
  render(html`
    <header class="top">
      <h1><img src="icon.svg" alt="">slurm-gov</h1>
      ${doc?.cluster?.time ? html`<ul class="facts">
        <li>${count(Object.keys(doc.nodes).length, "node")}</li><li>${count(doc.cluster.running_jobs, "job")} running</li>
        <li>${count(doc.cluster.waiting_jobs, "job")} waiting</li></ul>` : nothing}
      ${freshness(doc, wrong)}
      <button type="button" class="theme" title="light, dark, or as the system is" @click=${() => { wear(THEMES[(THEMES.indexOf(theme) + 1) % 3]); again(); }}>
        <span class="unseen">colours: </span>${theme}</button>
    </header>
    <div role="alert">${wrong && wrong.kind !== "starting" ? html`<p class="banner ${wrong.level}">${sentence(wrong, doc)}</p>` : nothing}</div>
    ${doc?.pools ? html`
      ${doc.cluster.warnings.length ? html`<ul class="warnings" aria-label="warnings">${doc.cluster.warnings.slice(0, 5).map((text) => html`<li>${plain(text)}</li>`)}
        ${doc.cluster.warnings.length > 5 ? html`<li>and ${doc.cluster.warnings.length - 5} more: slurm-gov status</li>` : nothing}</ul>` : nothing}
      <main>
        <div class="column pools">${pools(doc, now(), again)}</div>
        <div class="column jobs">${preemptions(doc, now())}${waiting(doc, now(), again)}</div>
        <div class="column side">${nodes(doc, again)}${log(doc, now())}</div>
      </main>` : html`<main class="waitfor"><p>${wrong?.kind === "unreachable" ? "" : "Waiting for the first look at Slurm …"}</p></main>`}
  `, document.body);
}

function freshness(doc, wrong) {
  const time = doc?.cluster?.time;
  if (!time) return html`<p class="fresh wait">connecting …</p>`;
  const age = now() - time;
  const state = wrong?.level === "bad" ? "bad" : "good";
  return html`<p class="fresh ${state}"><span class="dot"></span>${state === "good" ? "live" : "not live"} · as of
    <time>${clock(time, now())}</time>${age > 5 || state === "bad" ? `, ${span(age)} ago` : ""}</p>`;
}

/** Seconds that count up are not read aloud again and again. */
const counting = (text) => html`<span aria-hidden="true">${text}</span>`;

function sentence(wrong, doc) {
  const time = doc?.cluster?.time;
  const old = time ? html` What you see is as of ${clock(time, now())}${counting(`, ${span(now() - time)} ago`)}.` : nothing;
  const since = wrong.for ? counting(` for ${span(wrong.for)}`) : nothing;
  if (wrong.kind === "unreachable") return html`slurm-govd does not answer${since}: trying again. The caps that stand go on holding.${old}`;
  if (wrong.kind === "slurm") return html`Slurm does not answer${since}: nothing is decided until it does (${plain(wrong.error)}).${old}`;
  if (wrong.kind === "stuck") return html`The governor has not looked at Slurm${since}: see its log.${old}`;
  return html`Not all that was decided could be done, it is tried again: ${plain(wrong.error)}`;
}

function title(doc, wrong) {
  if (wrong?.level === "bad") return "✕ slurm-gov";
  const rows = Object.values(doc?.pools ?? {});
  const used = rows.reduce((sum, row) => sum + row.used, 0), total = rows.reduce((sum, row) => sum + row.total, 0);
  return total ? `${used}/${total} GPUs · slurm-gov` : "slurm-gov";
}

document.body.replaceChildren();
wear(theme);
document.addEventListener("again", again);
listen(again);
setInterval(again, 1000);
draw();
