"""Figures: tidy frames first, then drawings of them.

feature_frames    frames of features: embedding maps, distances, neighbours
frames            all other frames, and which figures a suite has
style             the common style of all figures
draw_features     drawings of feature frames
draw_differences  drawings of differences and their intervals
draw              all other drawings
digits            frame and drawing of the extension
"""
