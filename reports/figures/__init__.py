"""Figures: tidy frames first, then drawings of them.

feature_frames  frames of features: embedding maps, distances, neighbours
frames          every other frame, and which figures a suite has
style           one look for all
draw_features   drawings of feature frames
draw            drawings of all others
digits          frame and drawing of the extension
"""
