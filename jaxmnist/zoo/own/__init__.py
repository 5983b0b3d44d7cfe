"""The user's own parts, tried in small before anything is read or compiled in earnest.

A run without such parts imports none of this. Each part that breaks the contract of the train step
gets a sentence that names it, says what it did and what to change.
"""
