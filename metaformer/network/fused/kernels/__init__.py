"""Triton kernels, untyped as Triton wants them; the modules beside this folder call them.

A map is BHWC in memory: B images of `positions` = H * W rows of `channels` numbers. Numbers are loaded as they are
stored and computed in float32. An offset within an image fits 32 bits, that of an image has 64.
"""
