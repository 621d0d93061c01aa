"""The kinds of objects that a state of a river model may hold, and what each has.

The lists are exact: an object with other attributes, as another version of river may
have, is neither written nor read.
"""

_LEAF = "_disabled_attrs _last_split_attempt_at depth splitter splitters stats"
_BRANCH = "children depth feature stats threshold"
_SIZES = (
    "_active_leaf_size_estimate _growth_allowed _inactive_leaf_size_estimate "
    "_leaf_prediction _max_byte_size _max_size _n_active_leaves _n_inactive_leaves "
    "_root _size_estimate_overhead_fraction _split_criterion "
    "_train_weight_seen_by_model"
)
_TREE = (
    "delta grace_period max_depth memory_estimate_period merit_preprune "
    "nominal_attributes remove_poor_attrs splitter stop_mem_management tau binary_split"
)
_OF_CLASSES = "max_share_to_split min_branch_fraction nb_threshold"
_OF_NUMBERS = "leaf_model min_samples_split model_selector_decay"
_FOREST = (
    "_background _drift_detection_disabled _drift_detectors _drift_tracker _metrics "
    "_rng _warning_detection_disabled _warning_detectors _warning_tracker data "
    "disable_weighted_vote drift_detector lambda_value leaf_prediction max_features "
    "max_size metric n_models seed warning_detector"
)
_ADAPTIVE = (
    "_n_alternate_trees _n_pruned_alternate_trees _n_switch_alternate_trees _rng "
    "bootstrap_sampling drift_detector drift_window_threshold seed switch_significance"
)
_LINEAR = (
    "_weights _y_name clip_gradient initializer intercept intercept_init "
    "intercept_lr l1 l2 loss optimizer"
)
_FORESTS = "river.forest.adaptive_random_forest"
KINDS: dict[str, str] = {
    f"{_FORESTS}.ARFClassifier": f"{_FOREST} {_TREE} {_OF_CLASSES} split_criterion",
    f"{_FORESTS}.ARFRegressor": f"{_FOREST} {_TREE} {_OF_NUMBERS} _drift_norm "
    "aggregation_method",
    f"{_FORESTS}.BaseTreeClassifier": f"{_SIZES} {_TREE} {_OF_CLASSES} classes "
    "max_features rng",
    f"{_FORESTS}.BaseTreeRegressor": f"{_SIZES} {_TREE} {_OF_NUMBERS} max_features rng",
    "river.tree.hoeffding_adaptive_tree_classifier.HoeffdingAdaptiveTreeClassifier": (
        f"{_SIZES} {_TREE} {_OF_CLASSES} {_ADAPTIVE} classes"
    ),
    "river.tree.hoeffding_adaptive_tree_regressor.HoeffdingAdaptiveTreeRegressor": (
        f"{_SIZES} {_TREE} {_OF_NUMBERS} {_ADAPTIVE} _norm_dist"
    ),
    "river.tree.nodes.arf_htc_nodes.RandomLeafMajorityClass": (
        f"{_LEAF} feature_indices max_features rng"
    ),
    "river.tree.nodes.arf_htr_nodes.RandomLeafMean": (
        f"{_LEAF} feature_indices max_features rng"
    ),
    "river.tree.nodes.hatc_nodes.AdaLeafClassifier": (
        f"{_LEAF} _mc_correct_weight _mean_error _nb_correct_weight drift_detector rng"
    ),
    "river.tree.nodes.hatr_nodes.AdaLeafRegMean": (
        f"{_LEAF} _error_tracker drift_detector rng"
    ),
    "river.tree.nodes.branch.NumericBinaryBranch": _BRANCH,
    "river.tree.nodes.hatc_nodes.AdaNumBinaryBranchClass": (
        f"{_BRANCH} _alternate_tree _mean_error drift_detector"
    ),
    "river.tree.nodes.hatr_nodes.AdaNumBinaryBranchReg": (
        f"{_BRANCH} _alternate_tree _error_tracker drift_detector"
    ),
    "river.tree.splitter.ebst_splitter.EBSTNode": "_left _right att_val estimator",
    "river.tree.splitter.tebst_splitter.TEBSTSplitter": "_root digits",
    "river.tree.splitter.gaussian_splitter.GaussianSplitter": (
        "_att_dist_per_class _max_per_class _min_per_class n_splits"
    ),
    "river.proba.gaussian.Gaussian": "_var seed",
    "river.stats.mean.Mean": "_mean n",
    "river.stats.var.Var": "_S ddof mean",
    "river.drift.adwin.ADWIN": "_drift_detected _helper clock delta grace_period "
    "max_buckets min_window_length",
    "river.metrics.accuracy.Accuracy": "cm",
    "river.metrics.confusion.ConfusionMatrix": "_init_classes _total_true_positives "
    "data n_samples sum_col sum_row total_weight",
    "river.metrics.mse.MSE": "_mean",
    "river.linear_model.lin_reg.LinearRegression": _LINEAR,
    "river.linear_model.log_reg.LogisticRegression": _LINEAR,
    "river.multiclass.ovr.OneVsRestClassifier": "_y_name classifier classifiers",
    "river.optim.initializers.Zeros": "value",
    "river.optim.losses.Log": "weight_neg weight_pos",
    "river.optim.losses.Squared": "",
    "river.optim.schedulers.Constant": "learning_rate",
    "river.optim.sgd.SGD": "lr n_iterations",
    "river.preprocessing.scale.StandardScaler": "counts means vars window_size "
    "with_std",
    "statistics.NormalDist": "_mu _sigma",
}
UNSAVED = {
    "river.tree.splitter.ebst_splitter.EBSTNode": "_update_estimator",
    "river.proba.gaussian.Gaussian": "_rng",
}
"""Attributes that are made anew: a function, which is the same for every node of one
target, and dice that learning does not throw (without a seed they differ each time)."""
