"""Recorded requests through the student: is it as good as the frontier that answered them?"""
