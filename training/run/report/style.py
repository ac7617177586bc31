"""The style sheet of the report: one column on a phone, two on a desk, ink on white when printed."""

STYLE = """
:root { --bg: #f5f6f8; --card: #fff; --ink: #1b2330; --soft: #667085; --rule: #e3e7ee;
  --s0: #2f6bed; --s1: #e0662b; --s2: #17936a; --s3: #8f51d6; }
@media (prefers-color-scheme: dark) { :root { --bg: #11151c; --card: #1a202a; --ink: #e8ecf3; --soft: #96a1b3;
  --rule: #2c3441; --s0: #77a5ff; --s1: #ff9d66; --s2: #4fd1a1; --s3: #c49bff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI",
  Roboto, "DejaVu Sans", sans-serif; -webkit-text-size-adjust: 100%; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 18px 60px; }
header p { margin: 0; color: var(--soft); }
h1 { margin: 0 0 2px; font-size: clamp(1.35rem, 4.5vw, 2rem); line-height: 1.2; letter-spacing: -.015em;
  overflow-wrap: anywhere; }
h2 { margin: 38px 0 12px; font-size: 1.15rem; letter-spacing: -.01em; }
h3 { margin: 0; font-size: .95rem; font-weight: 600; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(135px, 1fr)); gap: 12px; margin-top: 20px; }
.tile, figure, details, .strips { background: var(--card); border: 1px solid var(--rule); border-radius: 12px; }
.tile { padding: 12px 14px; }
.tile span { display: block; color: var(--soft); font-size: .8rem; overflow-wrap: anywhere; }
.tile b { font-size: 1.3rem; font-weight: 650; font-variant-numeric: tabular-nums; letter-spacing: -.01em; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 430px), 1fr)); gap: 14px; }
.hit .dot { opacity: 0; } .hit:hover .dot { opacity: .55; }
figure { margin: 0; padding: 14px 14px 8px; }
figcaption { display: flex; flex-wrap: wrap; gap: 2px 14px; justify-content: space-between; align-items: baseline; }
.legend { display: flex; flex-wrap: wrap; gap: 0 14px; font-size: .82rem; color: var(--soft); }
.legend b { color: var(--ink); font-variant-numeric: tabular-nums; }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 5px; }
i.s0 { background: var(--s0); } i.s1 { background: var(--s1); } i.s2 { background: var(--s2); }
i.s3 { background: var(--s3); }
svg { display: block; width: 100%; height: auto; margin-top: 6px; }
svg text { fill: var(--soft); font-size: 13px; }
.grid { stroke: var(--rule); stroke-width: 1; fill: none; } .axis { stroke: var(--soft); stroke-width: 1; fill: none; }
.line { fill: none; stroke-width: 2.2; stroke-linejoin: round; stroke-linecap: round; }
.line.s0 { stroke: var(--s0); } .line.s1 { stroke: var(--s1); } .line.s2 { stroke: var(--s2); }
.line.s3 { stroke: var(--s3); }
.dot.s0 { fill: var(--s0); } .dot.s1 { fill: var(--s1); } .dot.s2 { fill: var(--s2); } .dot.s3 { fill: var(--s3); }
.note { margin: 2px 0 4px; color: var(--soft); font-size: .82rem; }
.strips { padding: 12px 14px; }
.strip { display: grid; grid-template-columns: 72px 1fr; gap: 10px; align-items: center; padding: 3px 0; }
.strip span { color: var(--soft); font-size: .82rem; text-align: right; font-variant-numeric: tabular-nums; }
.strip img { display: block; width: 100%; border-radius: 6px; }
.strip img.small { image-rendering: pixelated; }
details { padding: 10px 14px; margin-bottom: 10px; }
summary { cursor: pointer; font-weight: 600; }
table { border-collapse: collapse; width: 100%; font-size: .86rem; margin-top: 8px; }
td { padding: 4px 10px 4px 0; border-top: 1px solid var(--rule); vertical-align: top; overflow-wrap: anywhere; }
th { padding: 4px 10px 4px 0; text-align: left; font-weight: 600; overflow-wrap: anywhere; }
td:first-child { color: var(--soft); width: 38%; }
footer { margin-top: 34px; color: var(--soft); font-size: .82rem; }
@media (max-width: 560px) { main { padding: 18px 12px 40px; } .strip { grid-template-columns: 1fr; gap: 2px; }
  .strip span { text-align: left; } .tiles { grid-template-columns: 1fr 1fr; } svg text { font-size: 19px; } }
@media print { :root { --bg: #fff; --card: #fff; --ink: #000; --soft: #444; --rule: #ccc; --s0: #1f4fc0;
  --s1: #b8470f; --s2: #0c6b4b; --s3: #6a2fb0; } main { max-width: none; padding: 0; } body { font-size: 11pt; }
  figure, .tile, .strips, tr, .strip { break-inside: avoid; } h2 { break-after: avoid; }
  .charts { grid-template-columns: 1fr 1fr; }
  /* Paper has nothing to click: folded settings are printed open. */
  details::details-content { content-visibility: visible; block-size: auto; } }
"""
