"""The compiled module: addresses in, nothing checked. Use `headstart.ops`."""

FUSED_COLUMNS: int  # a mixture of at most so many columns needs no projection

class Place:
    def __init__(self, device: int, threads: int, stream: int) -> None: ...

# The structs of csrc/kernels.h: addresses are integers, and the optional fields 0 where not given.

class Address:
    seed: int
    offset: int
    step: int
    stream: int
    origin: int
    def __init__(
        self,
        *,
        seed: int,
        offset: int = 0,
        step: int = 0,
        stream: int = 0,
        origin: int = 0,
    ) -> None: ...

class AffineParams:
    rows: int
    columns: int
    type: int
    x: int
    a: float
    terms: list[tuple[float, int, int]]
    noise_scale: float
    address: Address
    out: int
    out_scaled: int
    out_scaled_type: int
    scale: float
    def __init__(
        self,
        *,
        rows: int,
        columns: int,
        type: int,
        x: int,
        a: float,
        terms: list[tuple[float, int, int]],
        noise_scale: float,
        address: Address,
        out: int,
        out_scaled: int,
        out_scaled_type: int,
        scale: float,
    ) -> None: ...

class MixtureParams:
    rows: int
    components: int
    columns: int
    rank: int
    type: int
    x: int
    mean: int
    precision: int
    keep: int
    variance_columns: int
    axes: int
    drop: int
    gain: int
    log_constant: int
    log_constant_stride: int
    projection: int
    whitening: int
    log_prob: int
    responsibility: int
    denoised: int
    coefficient: int
    def __init__(
        self,
        *,
        rows: int,
        components: int,
        columns: int,
        rank: int,
        type: int,
        x: int,
        mean: int,
        precision: int,
        keep: int,
        variance_columns: int,
        axes: int,
        drop: int,
        gain: int,
        log_constant: int,
        log_constant_stride: int,
        projection: int,
        whitening: int,
        log_prob: int,
        responsibility: int,
        denoised: int,
        coefficient: int,
    ) -> None: ...

class MixtureSampleParams:
    rows: int
    columns: int
    rank: int
    type: int
    component: int
    mean: int
    deviation: int
    variance_columns: int
    axes: int
    factor: int
    floor: Address
    along: Address
    out: int
    def __init__(
        self,
        *,
        rows: int,
        columns: int,
        rank: int,
        type: int,
        component: int,
        mean: int,
        deviation: int,
        variance_columns: int,
        axes: int,
        factor: int,
        floor: Address,
        along: Address,
        out: int,
    ) -> None: ...

class UniformParams:
    rows: int
    address: Address
    out: int
    def __init__(
        self,
        *,
        rows: int,
        address: Address,
        out: int,
    ) -> None: ...

class WordsParams:
    seeds: int
    rows: int
    groups: int
    address: Address
    out: int
    def __init__(
        self,
        *,
        seeds: int,
        rows: int,
        groups: int,
        address: Address,
        out: int,
    ) -> None: ...

def learn(tensor: object, strided: object, dtypes: tuple[object, ...], stream: object) -> None: ...
def affine(place: Place, params: AffineParams) -> None: ...
def find_overlap(params: AffineParams) -> tuple[str, str] | None: ...
def run_plain_affine(
    x: object,
    a: float,
    terms: object,
    noise: object,
    out: object,
    scaled: object,
    scale: float,
    threads: int,
) -> bool: ...
def mixture(place: Place, params: MixtureParams) -> None: ...
def mixture_sample(place: Place, params: MixtureSampleParams) -> None: ...
def uniform(place: Place, params: UniformParams) -> None: ...
def words(params: WordsParams, threads: int) -> None: ...
def philox(counter: list[int], key: list[int]) -> list[int]: ...
def set_openmp(parallel: int, thread: int, team: int) -> None: ...
def isa() -> str: ...
def set_isa(name: str) -> bool: ...
def build_info() -> dict[str, str | bool]: ...
