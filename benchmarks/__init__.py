"""Experiments with the method: what runs, where, what stays of it, and how fast it is.

In the order of a run's life; each file imports only files and rooms listed above it.

experiments    profiles and variants -> the runs of a plan
interrupts     Ctrl-C and the signals that end a call in order
threads        how many CPU threads a run uses
provenance     which code, packages and machine a number comes from
records        JSON and CSV files of results
result_folder     a run's folder: who works on it, states, checksums
store          the runs and the suite of an output folder
moved          results folders that lie elsewhere than they were made
exhibits       what MLflow's pages show of them
mirror         the same results in MLflow (the only import of mlflow)
material       what all runs share: lists, images, words, pretrained networks
picture_sheets  small pictures of a split's queries and photos, for the report
extraction     trained network -> features
scoring        features -> every number that is reported
run_artifacts  features and numbers -> files of a run's folder
runner         the life of a run: states, training, failure, resume
checking       a method of one's own on a tiny network, in seconds
counts         what the numbers of pictures and classes rule out
preflight      what a plan needs, checked before anything runs
resources      what `--slurm` asks for
prepared       command line -> checked plan
reproduce      one recorded run again, compared number by number
launch         where runs are computed: worker processes, Ray, their cost
extension      domain adaptation on digits; drawings of another data set as queries
compare        runs and files of features, pair by pair, by the report's statistics
add            features made elsewhere -> a run's folder
bundle         finished runs in one file that can be sent
verify         the numbers of such a file, worked out again
everything     the whole grid in one call, within a budget
demo           a page on which one draws and sees what finished runs find
recorded       the command on results that are there: --sync, --reproduce
run_all        the command
console        `tcn run`, `tcn report`, `tcn compare`, `tcn add`, `tcn bundle`, `tcn verify`, `tcn evaluate`, `tcn data check`,
               `tcn extract`, `tcn quickdraw`, `tcn demo`
tools          makers of committed data, searches, fault injection
speed          every hot path beside a plain reference
"""
