"""Materials of the synthetic portrait.

The shading tests ranges: both skins come first, and materials with fine detail are consecutive.
"""

SKIN, NECK, CAVITY, TEETH, EYEBALL, HAIR, CLOTH, COLLAR = range(8)
