"""The app: a page on which a person asks a classifier "why?", and named endpoints that answer programs.

Read it in this order: `views` (what is computed, plain functions), `painting` and `figures` (what is shown),
`uploads` and `models` (what is let in), `answers` (who waits for what), `events`, `layout` and `start` (the page, which
needs gradio: the extra `space`).
"""
