"""From ImageNet networks to two coupled encoders with one embedding.

ranks         the processes that train one model together: shares of a batch, gathering, averages
batch_norms   batch statistics of channels-last images on the CPU, summed without loss
execution     precision, memory order and kernels: how a model is carried out
recording     passes of a module recorded as CUDA graphs
weight_files  files of weights, matched to an architecture by name
published     files of weights that others publish, fetched once
cutting       any network cut into stem and four stages
sources       architectures by name, any of timm's and torchvision's among them
backbones     ImageNet networks and where their weights come from
coupling      which parts are hard-shared, softly tied, independent
embedding     projection, batch norm by modality, heads, SVD start
synchronised  batch norms over the batch of several processes
network       encoders + embedding -> CoupledOutput
"""
