"""`hf-explain publish`: an explainer with its card, and a Space of it, on the Hub.

It imports everything on the floors below; nothing but the command line imports it. Start with folders.py (what would go
where), then card.py and space.py. Its commands are its doors, so nothing is exported.
"""
