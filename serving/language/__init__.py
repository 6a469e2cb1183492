"""The output language: field declarations, segments, regular expressions and parsing.

A leaf package: it depends on no task, tokenizer, model or HTTP code.
"""
