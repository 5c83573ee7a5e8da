"""How the page looks: system fonts, so that nothing is fetched; colors that follow light or dark mode."""

from __future__ import annotations

import gradio as gr

HEADER = """
<header class="hx-head">
  <h1>Which pixels made my classifier say that?</h1>
  <p>Drop a picture, click a class, and see what the classifier relies on for it, and how far that map can be trusted:
  the important pixels are removed, and the classifier is asked again.</p>
</header>
"""

STYLE = """
.gradio-container { --curve-deletion: #c2410c; --curve-insertion: #0f766e; --hx-faint: #475569;
  max-width: 1280px !important; margin: auto; }
.dark .gradio-container, .gradio-container.dark, .dark { --curve-deletion: #fb923c; --curve-insertion: #2dd4bf;
  --hx-faint: #cbd5e1; }
.hx-head { border-top: 5px solid; padding: 14px 2px 2px;
  border-image: linear-gradient(90deg, #000004, #550f6d, #ba3655, #f98c0a, #fcffa4) 1; }
.hx-head h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; }
.hx-head p { margin: 0; max-width: 75ch; color: var(--hx-faint); }
.hx-said p { margin: 0 0 6px; font-size: 1.05rem; }
.hx-gallery .caption-label { white-space: normal; text-align: left; left: var(--block-label-margin); max-width: none; }
.hx-gallery .grid-wrap { min-height: 0 !important; height: auto !important; max-height: none; }
.hx-ramp { display: flex; align-items: center; gap: 10px; font-size: .85rem; color: var(--hx-faint); }
.hx-ramp i { flex: 1; max-width: 260px; height: 10px; border-radius: 5px; }
.hx-curves { margin: 0; }
.hx-curves svg { width: 100%; height: auto; display: block; }
.hx-curves text { font-size: 12px; fill: var(--hx-faint); }
.hx-curves .grid { stroke: var(--border-color-primary); stroke-width: 1; }
.hx-curves polyline { fill: none; stroke-linejoin: round; stroke-linecap: round; }
.hx-curves .curve { stroke-width: 3; }
.hx-curves .floor { stroke-width: 1.5; stroke-dasharray: 3 5; opacity: .8; }
.hx-curves .scrubber { stroke: var(--body-text-color); stroke-width: 1; stroke-dasharray: 2 3; }
.hx-curves figcaption { display: flex; flex-wrap: wrap; gap: 4px 22px; padding-left: 74px; font-size: .9rem; }
.hx-curves figcaption i { display: inline-block; width: 14px; height: 4px; border-radius: 2px; margin-right: 7px;
  vertical-align: middle; }
.hx-note { color: var(--hx-faint); font-size: .9rem; }
.tabs { width: 0; min-width: 100%; }  /* as wide as there is room: else its headings widen the page of a phone */
:focus-visible { outline: 3px solid var(--color-accent) !important; outline-offset: 2px; }
footer { margin-top: 8px; }
@media (max-width: 640px) {
  .hx-head h1 { font-size: 1.3rem; }
  #map, #map .image-container { height: 340px !important; }
  .hx-curves text { font-size: 20px; }
  .hx-curves figcaption { padding-left: 0; }
}
"""


def theme() -> gr.themes.Base:
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    mono = ["ui-monospace", "SFMono-Regular", "Consolas", "monospace"]
    return gr.themes.Default(
        primary_hue="orange", neutral_hue="slate", radius_size="md", font=fonts, font_mono=mono
    ).set(body_background_fill="*neutral_50", body_background_fill_dark="*neutral_950", block_shadow="none")
