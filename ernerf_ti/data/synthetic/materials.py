"""What a point of the synthetic portrait's surface is made of.

The order lets the shading test ranges: both skins come first, what has fine detail is in one run.
"""

SKIN, NECK, CAVITY, TEETH, EYEBALL, HAIR, CLOTH, COLLAR = range(8)
