"""From a model and paired batches to a trained model.

losses       classification, distillation, soft sharing, semantic metric
distances    how far the encoders move from their start and from each other
method       the interface between training and a method; TCN's own method
checkpoints  a run's state at the end of an epoch: whole, checked, the last two kept
parallel     further processes that train the same model, one for each device
loop         fit(method, model, ...) -> History
"""
