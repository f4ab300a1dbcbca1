// What the governor did, the newest first.

import { html, nothing } from "./lit-html.js";
import { colour } from "./pools.js";
import { clock, count, plain } from "./words.js";

const KINDS = {
  cap: "cap", preempt: "preempt", spare: "spare", requeue: "requeue", cancel: "cancel", release: "release",
  refuse: "refuse", node: "node", policy: "policy", daemon: "daemon",
};

export function log(doc, now) {
  const rows = Object.values(doc.happened).sort((a, b) => b.id - a.id);
  return html`<section class="card log" aria-label="decisions"><h2>Decisions</h2>
    ${rows.length ? html`<ol class="rows scroll" tabindex="0" role="log">${rows.map((row) => html`<li>
      <time>${clock(row.at, now)}</time> <span class="kind k-${row.kind}">${KINDS[row.kind] ?? plain(row.kind)}</span>
      <span class="said">${said(doc, row)}</span></li>`)}</ol>` : html`<p class="empty">Nothing was decided yet.</p>`}
  </section>`;
}

function team(doc, name) {
  return html`<i class="swatch c-${colour(doc, name)}"></i><b>${plain(name)}</b>`;
}

function said(doc, row) {
  const why = row.why ? html`<span class="why">${plain(row.why)}</span>` : nothing;
  const size = row.gpus ? `, ${count(row.gpus, "GPU")}` : "";
  const job = html`job <b>${plain(row.job)}</b>${row.team ? html` of ${team(doc, row.team)}` : nothing}${size}`;
  const forWhom = row.for_job ? html` for job ${plain(row.for_job)}${row.for_team ? html` of ${team(doc, row.for_team)}` : nothing}` : nothing;
  if (row.kind === "cap") {
    const up = +row.after > +(row.before || 0);
    return html`${team(doc, row.team)} ${up ? "▲" : "▼"} ${plain(row.before || "none")} → <b>${plain(row.after)}</b> ${plain(row.pool)} ${why}`;
  }
  if (row.kind === "node") return html`<b>${plain(row.node)}</b>${row.after ? `: ${plain(row.before)} → ${plain(row.after)}` : ""} ${why}`;
  if (row.job) return html`${job}${forWhom} ${why}`;
  if (row.kind === "refuse") return html`${row.user || row.who ? html`<b>${plain(row.user || row.who)}</b> ` : nothing}${row.team ? team(doc, row.team) : nothing} ${why}`;
  return html`${row.team ? team(doc, row.team) : nothing} ${why}`;
}
