"""The built-in tiny model: the real Z-Image classes at about 4 million parameters, and how it is made.

`architecture` builds the parts, `pictures` draws what they learn, `pretrain` trains them and writes
`acrf_engine/assets/tiny`. Using the finished model needs none of this: it is a folder in diffusers layout.
"""
