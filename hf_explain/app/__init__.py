"""`hf-explain app`: a page on which a person asks a classifier "why?"; its endpoints answer programs.

It imports everything on the floors below; nothing but the command line imports it. Start with `views` (what is
computed, plain functions), then `painting` and `figures` (what is shown), `uploads` and `models` (what is let in),
`answers` (who waits for what), `events`, `layout` and `start` (the page, which needs gradio, so nothing is exported).
"""
