"""what every long job needs: processes, progress, folders, randomness, flags, models by name.

It imports `modeling` only. Start with processes.py (who does what, how a job is stopped) and folders.py (a file is
there as a whole or not at all). Nothing of it is public, so nothing is exported.
"""
