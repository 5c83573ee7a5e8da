"""The app: a page on which a person asks a classifier "why?", and named endpoints that answer programs.

Read it in this order: `views` (what is computed, plain functions), `painting` and `figures` (what is shown),
`uploads` and `models` (what is let in), `answers` (who may wait for what), `events` and `layout` (the page).
Only the last two need gradio: `pip install "hf-explain[space]"`.
"""
