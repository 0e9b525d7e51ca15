"""The Celery apps that are measured.

They run in the environment of their contender: stdlib, Celery and the contender's library only.
"""
