// Nodes as a map: one field each, by state; and those that are not healthy, with what Slurm has noted.

import { html, nothing } from "./lit-html.js";
import { CONDITIONS, count, plain, SICK } from "./words.js";

const LISTED = 30;
let pointed = "";

export function nodes(doc, again) {
  const all = Object.entries(doc.nodes);
  const tally = {};
  for (const [, row] of all) tally[row.c] = (tally[row.c] ?? 0) + 1;
  const kinds = Object.keys(CONDITIONS).filter((kind) => tally[kind]);
  const pools = [...new Set(all.map(([, row]) => row.p ?? ""))];
  const size = all.length <= 32 ? "large" : all.length <= 160 ? "middle" : "small";
  const sick = all.filter(([, row]) => SICK.includes(row.c));
  sick.sort((a, b) => SICK.indexOf(a[1].c) - SICK.indexOf(b[1].c));
  const point = (event) => {
    const name = event.target.dataset?.node;
    if (name && name !== pointed) {
      pointed = name;
      again();
    }
  };
  const says = kinds.map((kind) => `${tally[kind]} ${CONDITIONS[kind]}`).join(", ");
  return html`<section class="card nodes" aria-label="nodes"><h2>Nodes <small>${all.length.toLocaleString("en")}</small></h2>
    <ul class="legend">${kinds.map((kind) => html`<li><i class="node ${kind}" .style=${kind === "free" ? "--u:0" : "--u:.55"}></i>${CONDITIONS[kind]} <b>${tally[kind]}</b></li>`)}</ul>
    ${sick.length ? html`<h3>Not taking jobs: ${count(sick.length, "node")}</h3>
      <ul class="rows sick scroll" tabindex="0">${sick.slice(0, LISTED).map(([name, row]) => html`<li>
        <i class="node ${row.c}" .style=${"--u:0"}></i><b>${plain(name)}</b> ${CONDITIONS[row.c]}${row.u ? `, ${count(row.u, "GPU")} still held` : ""}
        <span class="why">${row.r ? plain(row.r) : `Slurm: ${plain(row.s)}`}</span></li>`)}
        ${sick.length > LISTED ? html`<li>and ${sick.length - LISTED} more</li>` : nothing}</ul>` : nothing}
    <div @pointerover=${point} @click=${point}>${pools.map((pool) => html`
      ${pools.length > 1 ? html`<h3>${plain(pool) || "no pool"}</h3>` : nothing}
      <div class="map ${size}" role="img" aria-label=${pools.length > 1 ? plain(pool) || "no pool" : says}>${all.filter(([, row]) => (row.p ?? "") === pool).map(([name, row]) => html`<i
        class="node ${row.c}" data-node=${name} .style=${`--u:${row.g ? (row.u ?? 0) / row.g : 0}`}
        title=${describe(name, row)}>${size === "large" ? html`<span>${plain(name)}</span>` : nothing}</i>`)}</div>`)}</div>
    ${pointed && doc.nodes[pointed] ? html`<p class="pointed">${describe(pointed, doc.nodes[pointed])}</p>` : nothing}
  </section>`;
}

function describe(name, row) {
  const teams = Object.entries(row.t ?? {}).map(([team, gpus]) => `${plain(team) || "no team"} ${gpus}`);
  const held = row.g ? `, ${row.u ?? 0} of ${count(row.g, "GPU")} held${teams.length ? ` (${teams.join(", ")})` : ""}` : "";
  return `${plain(name)}: ${CONDITIONS[row.c] ?? row.c}${held}${row.r ? `; ${plain(row.r)}` : ""}`;
}
