"""How fast decoders are: arms timed in turns, and where their time, memory and arithmetic go."""
