"""Random FATE 1.x models: for every party the parts that its export holds, with names as FATE gives them."""

from __future__ import annotations

import base64
import io
import json
import random
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import Message

from tessera.compat import fate_model_pb2 as wire

GUEST = "9999"
HOSTS = ("10000", "10001")
TEXTS = ("red", "green", "blue")
MISSING = (
    ("", "none", "null", "na", "None", "nan", "-999"),
    ("none", "-999"),
    ("", "-999"),
    ("nan",),
    ("-999",),
)
OUTLIERS = (("777", "-777", "black"), ("777", "black", "nan"), ("", "none", "null", "na", "None", "nan"))


@dataclass
class FateModel:
    """`parts` by role:party; `columns`: the names of a party's raw columns; `worded`: those that hold texts; `binned`:
    those that become bins and are nobody's one-hot."""

    hosts: tuple[str, ...]
    parts: dict[str, dict[str, bytes]] = field(default_factory=dict)
    columns: dict[str, list[str]] = field(default_factory=dict)
    worded: set[str] = field(default_factory=set)
    binned: set[str] = field(default_factory=set)

    @property
    def sites(self) -> list[str]:
        return [f"guest:{GUEST}", *(f"host:{host}" for host in self.hosts)]


class Builder:
    """One party's pipeline, component by component."""

    def __init__(self, source: random.Random, site: str, columns: Sequence[str]) -> None:
        self.source = source
        self.site = site
        self.role = site.partition(":")[0]
        self.raw = list(columns)
        self.columns = list(columns)
        self.worded: set[str] = set()
        self.binned: set[str] = set()
        self.parts: dict[str, bytes] = {}
        self.dsl: dict[str, object] = {}
        self.settings: dict[str, object] = {}
        self.last = ""

    def add(self, name: str, kind: str, part: str, meta: Message | None, param: Message | None) -> None:
        upstream = [f"{self.last}.data"] if self.last else ["args.data"]
        class_name = kind if kind in {"DataIO", "DataTransform", "Scale", "OneHotEncoder", "FeatureImputation"} else ""
        class_name = class_name or (kind if kind == "Scorecard" else f"{kind}{self.role.capitalize()}")
        self.dsl[name] = {
            "module": kind,
            "CodePath": f"federatedml/x.py/{class_name}",
            "input": {"data": {"data": upstream}},
        }
        if meta is not None and param is not None:
            self.parts[f"{name}/model/{part}Meta"] = meta.SerializeToString()
            self.parts[f"{name}/model/{part}Param"] = param.SerializeToString()
        self.last = name

    def finish(self) -> dict[str, bytes]:
        pipeline = wire.Pipeline(
            inference_dsl=json.dumps({"components": self.dsl}).encode(),
            train_runtime_conf=json.dumps({"component_parameters": {"common": self.settings}}).encode(),
        )
        return {**self.parts, "pipeline/pipeline/Pipeline": pipeline.SerializeToString()}

    def number(self, low: float = -2.0, high: float = 2.0) -> float:
        return round(self.source.uniform(low, high), 3)

    def some(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if self.source.random() < 0.7]

    def data_transform(self, kind: str = "DataTransform", sparse: bool = False) -> None:
        source = self.source
        meta = wire.DataIOMeta(input_format=source.choice(["dense", "dense", "tag", "sparse"]), need_run=True)
        meta.output_format = "sparse" if sparse else "dense"
        param = wire.DataIOParam(header=self.columns)
        if source.random() < 0.7 and meta.input_format != "sparse":
            meta.tag_with_value = meta.input_format == "tag" and source.random() < 0.7
            meta.imputer_meta.is_imputer = True
            listed = source.choice(MISSING) if meta.input_format == "dense" else MISSING[0]
            meta.imputer_meta.missing_value.extend(listed)
            param.imputer_param.missing_replace_value.update({name: self._replacement(name) for name in self.columns})
        if source.random() < 0.5 and meta.input_format == "dense":
            meta.outlier_meta.is_outlier = True
            meta.outlier_meta.outlier_value.extend(source.choice(OUTLIERS))
            param.outlier_param.outlier_replace_value.update({name: self._replacement(name) for name in self.columns})
        self.add("data_transform_0", kind, kind, meta, param)

    def _replacement(self, name: str) -> str:
        if name in self.worded:
            return self.source.choice(TEXTS)
        return self.source.choice([str(self.number()), str(self.number()), "1", "1.0"])

    def feature_imputation(self) -> None:
        meta = wire.FeatureImputationMeta(need_run=self.source.random() < 0.8)
        meta.imputer_meta.missing_value.extend(self.source.choice([["", "none", "nan", "555"], ["555", "-999"]]))
        param = wire.FeatureImputationParam(header=self.columns)
        names = [name for name in self.some(self.columns) if name not in self.worded]
        param.imputer_param.missing_replace_value.update({name: str(self.number()) for name in names})
        param.imputer_param.skip_cols.extend(names[:1])
        self.add("feature_imputation_0", "FeatureImputation", "FeatureImputation", meta, param)

    def scale(self) -> None:
        method = self.source.choice(["min_max_scale", "standard_scale"])
        meta = wire.ScaleMeta(method=method, need_run=self.source.random() < 0.9)
        param = wire.ScaleParam(header=self.columns)
        for name in self.some(self.columns):
            if name in self.worded:
                continue
            lower = self.number()
            width = self.source.choice([0.0, 1.0, 2.5, -0.5] if method == "min_max_scale" else [0.0, 1.0, 2.5])
            scale = param.col_scale_param[name]
            scale.column_lower, scale.column_upper = lower, lower + width
            scale.mean, scale.std = self.number(), self.source.choice([0.0, 0.5, 2.0])
        self.add("feature_scale_0", "Scale", "Scale", meta, param)

    def binning(self) -> None:
        kinds = ["bin_num", "woe", ""]
        meta = wire.FeatureBinningMeta(need_run=self.source.random() < 0.9)
        meta.transform_param.transform_type = self.source.choice(kinds)
        param = wire.FeatureBinningParam(header=self.columns)
        for place, name in enumerate(self.columns):
            if name in self.worded:
                continue
            result = param.binning_result.binning_result[name]
            result.split_points.extend(sorted({self.number() for _ in range(4)}))
            result.woe_array.extend(self.number() for _ in result.split_points)
            if self.source.random() < 0.7:
                meta.transform_param.transform_cols.append(place)
                self.binned |= {name} if meta.need_run else set()
        self.add("hetero_feature_binning_0", "HeteroFeatureBinning", "FeatureBinning", meta, param)

    def selection(self) -> None:
        meta = wire.FeatureSelectionMeta(need_run=self.source.random() < 0.8)
        left = {name: self.source.random() < 0.8 for name in self.columns}
        left[self.columns[0]] = True
        param = wire.FeatureSelectionParam()
        param.final_left_cols.left_cols.update(left)
        self.add("hetero_feature_selection_0", "HeteroFeatureSelection", "FeatureSelection", meta, param)
        if meta.need_run:
            self.columns = [name for name in self.columns if left[name]]

    def one_hot(self) -> None:
        names = self.columns[-2:]
        self.binned -= set(names)
        meta, param = wire.OneHotMeta(transform_col_names=names, need_run=True), wire.OneHotParam()
        made = []
        for name in names:
            values = TEXTS if name in self.worded else ("0", "1", "2")
            headers = [f"{name}_{value}" for value in values]
            param.col_map[name].values.extend(values)
            param.col_map[name].transformed_headers.extend(headers)
            made += headers
        self.columns = [*self.columns[:-2], *made]
        self.add("one_hot_0", "OneHotEncoder", "OneHot", meta, param)

    def linear(self, kind: str, part: str, param: Message, meta: Message) -> None:
        self.weigh(param)
        self.add(f"{part.lower()}_0", kind, part, meta, param)

    def weigh(self, param: Message) -> None:
        param.weight.update({name: self.number() for name in self.columns})
        param.header.extend(self.columns)
        param.intercept = self.number() if self.role == "guest" else 0.0


@dataclass(frozen=True)
class Recipe:
    """`kind`: lr, ovr, linr, poisson, fm, scorecard, or trees with `strategy` and `classes` (0 regression)."""

    kind: str
    hosts: int = 1
    classes: int = 2
    strategy: str = "std"
    objective: str = "cross_entropy"
    use_missing: bool = True
    zero_as_missing: bool = False
    texts: bool = False
    plain: bool = False
    """No preprocessing at all."""


def make(seed: int, recipe: Recipe) -> FateModel:
    source = random.Random(seed)
    model = FateModel(HOSTS[: recipe.hosts])
    builders = []
    for site in model.sites:
        prefix = "g" if site.startswith("guest") else f"h{site[-1]}"
        builder = Builder(source, site, [f"{prefix}{number}" for number in range(5)])
        if recipe.texts:
            builder.worded = {builder.columns[-1]}
        if not recipe.plain:
            _preprocess(builder, recipe)
        builders.append(builder)
    if recipe.kind == "trees":
        _trees(source, builders, recipe)
    else:
        for builder in builders:
            _linear(builder, recipe)
    for builder in builders:
        model.parts[builder.site] = builder.finish()
        model.columns[builder.site] = builder.raw
        model.worded |= builder.worded
        model.binned |= builder.binned
    return model


def _preprocess(builder: Builder, recipe: Recipe) -> None:
    """FATE has sparse rows without Scale, FeatureImputation and one-hot only."""
    sparse = not recipe.texts and builder.source.random() < 0.25
    builder.data_transform(builder.source.choice(["DataIO", "DataTransform"]), sparse)
    steps = [builder.feature_imputation, builder.scale, builder.binning, builder.selection]
    steps = steps[2:] if sparse else steps
    chosen = [step for step in steps if builder.source.random() < 0.5]
    if recipe.texts or (builder.source.random() < 0.3 and not sparse):
        chosen = [step for step in chosen if step != builder.selection]
        chosen.append(builder.one_hot)
    for step in chosen:
        step()


def _linear(builder: Builder, recipe: Recipe) -> None:
    match recipe.kind:
        case "lr" | "scorecard":
            builder.linear("HeteroLR", "HeteroLogisticRegression", wire.LRModelParam(), wire.LRModelMeta())
        case "linr":
            builder.linear("HeteroLinR", "HeteroLinearRegression", wire.LinRModelParam(), wire.LinRModelMeta())
        case "poisson":
            known = builder.columns.pop(0) if builder.role == "guest" else ""
            exposure = builder.source.choice([known, known, "away"])
            meta = wire.PoissonModelMeta(exposure_colname=exposure)
            builder.linear("HeteroPoisson", "HeteroPoissonRegression", wire.PoissonModelParam(), meta)
        case "ovr":
            param = wire.LRModelParam(need_one_vs_rest=True)
            for number in range(recipe.classes):
                builder.weigh(param.one_vs_rest_result.completed_models.add())
                param.one_vs_rest_result.one_vs_rest_classes.append(f"c{number}")
            builder.add("lr_0", "HeteroLR", "HeteroLogisticRegression", wire.LRModelMeta(), param)
        case "fm":
            param = wire.FMModelParam(embed_size=3)
            builder.weigh(param)
            for name in builder.columns[1:]:
                param.embedding[name].weight.extend(builder.number() for _ in range(3))
            builder.add("hetero_fm_0", "HeteroFM", "HeteroFM", wire.FMModelMeta(), param)
    if recipe.kind == "scorecard" and builder.role == "guest":
        builder.settings["scorecard_0"] = {"method": "credit", "offset": 400, "factor": 30.5, "factor_base": 3}
        builder.add("scorecard_0", "Scorecard", "", None, None)


def _trees(source: random.Random, builders: Sequence[Builder], recipe: Recipe) -> None:
    dim = recipe.classes if recipe.classes > 2 else 1
    count = 4 * dim
    params = [wire.BoostingTreeModelParam(tree_num=count, tree_dim=dim, num_classes=recipe.classes) for _ in builders]
    for builder, param in zip(builders, params, strict=True):
        param.feature_name_fid_mapping.update(dict(enumerate(builder.columns)))
        param.classes_.extend(f"c{number}" for number in range(recipe.classes))
        param.init_score.extend([0.0] if recipe.classes == 2 else [builder.number() for _ in range(dim)])
    for _ in range(count):
        owner = source.randrange(len(builders)) if recipe.strategy == "mix" else None
        nodes = _grow(source, builders, owner)
        for builder, param in zip(builders, params, strict=True):
            _hold(builder, param.trees_.add(), nodes, builders, owner)
            if owner is not None:
                param.tree_plan.append("0_-1" if owner == 0 else f"1_{builders[owner].site.partition(':')[2]}")
    meta = wire.BoostingTreeModelMeta(
        learning_rate=0.3,
        task_type="regression" if recipe.classes < 2 else "classification",
        use_missing=recipe.use_missing,
        zero_as_missing=recipe.zero_as_missing,
        boosting_strategy=recipe.strategy,
    )
    meta.objective_meta.objective = recipe.objective
    for builder, param in zip(builders, params, strict=True):
        builder.add("hetero_secure_boost_0", "HeteroSecureBoostingTree", "HeteroSecureBoostingTree", meta, param)


@dataclass
class _Node:
    id: int
    depth: int
    owner: int = 0
    fid: int = 0
    split: float = 0.0
    weight: float = 0.0
    missing_dir: int = 1
    left: int = -1
    right: int = -1


def _grow(source: random.Random, builders: Sequence[Builder], owner: int | None) -> list[_Node]:
    nodes = [_Node(0, 0)]
    for node in nodes:
        node.weight = round(source.uniform(-1, 1), 3)
        if node.depth == 4 or source.random() < 0.15:
            continue
        node.owner = source.randrange(len(builders)) if owner is None else owner
        node.fid = source.randrange(len(builders[node.owner].columns))
        node.split = round(source.uniform(-1, 1), 1)
        node.missing_dir = source.choice([-1, 1])
        node.left, node.right = len(nodes), len(nodes) + 1
        nodes += [_Node(node.left, node.depth + 1), _Node(node.right, node.depth + 1)]
    return nodes


def _hold(
    builder: Builder,
    tree: wire.DecisionTreeModelParam,
    nodes: Sequence[_Node],
    builders: Sequence[Builder],
    owner: int | None,
) -> None:
    """What this party's export says of a tree. Of a host's own tree the guest has the leaves, the others nothing."""
    me = builders.index(builder)
    if owner not in {None, me} and me != 0:
        tree.tree_.add(id=0, is_leaf=True)
        return
    last_leaf = max(node.id for node in nodes if node.left < 0)
    shown = nodes[: last_leaf + 1] if owner not in {None, me} else nodes
    for node in shown:
        made = tree.tree_.add(left_nodeid=-1, right_nodeid=-1)
        if node.left < 0:
            made.id, made.is_leaf, made.sitename = node.id, True, builders[0].site
            made.weight = node.weight if me == 0 else 0.0
            continue
        if owner not in {None, me}:
            continue
        made.id, made.sitename = node.id, builders[node.owner].site
        made.left_nodeid, made.right_nodeid = node.left, node.right
        if node.owner == me:
            made.fid = node.fid
            made.missing_dir = node.missing_dir if owner is not None and me else 0
            made.bid = node.split if owner is not None and me else 0.0
            tree.split_maskdict[node.id] = node.split
            tree.missing_dir_maskdict[node.id] = node.missing_dir


def as_json(parts: Mapping[str, bytes]) -> bytes:
    """As FATE-Serving's cache files hold it."""
    keys = {name: "{}.{}:{}".format(*name.split("/")) for name in parts}
    return json.dumps({keys[name]: base64.b64encode(raw).decode() for name, raw in parts.items()}).encode()


def as_transfer_reply(parts: Mapping[str, bytes]) -> bytes:
    return json.dumps({"retcode": 0, "retmsg": "", "data": json.loads(as_json(parts))}).encode()


def as_zip(parts: Mapping[str, bytes]) -> bytes:
    """As `flow model export` writes it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("define/define_meta.yaml", "describe: {}\n")
        for name, raw in parts.items():
            archive.writestr(f"variables/data/{name}", raw)
    return buffer.getvalue()
