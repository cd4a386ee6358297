"""The compiled module: addresses in, nothing checked. Use `headstart.ops`."""

class Place:
    def __init__(self, device: int, threads: int, stream: int) -> None: ...

class Sizes:
    def __init__(self, rows: int, components: int, columns: int, rank: int, variance_columns: int) -> None: ...

Address = tuple[int, int, int, int]  # seed, offset, step, stream

def learn(tensor: object, strided: object, dtypes: tuple[object, ...], stream: object) -> None: ...
def affine(
    place: Place,
    rows: int,
    columns: int,
    type: int,
    x: int,
    a: float,
    terms: list[tuple[float, int, int]],
    noise_scale: float,
    address: Address,
    origin: int,
    out: int,
    scaled: int,
    scaled_type: int,
    scale: float,
) -> None: ...
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
def mixture(
    place: Place,
    sizes: Sizes,
    type: int,
    x: int,
    mean: int,
    precision: int,
    keep: int,
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
def mixture_sample(
    place: Place,
    sizes: Sizes,
    type: int,
    component: int,
    mean: int,
    deviation: int,
    axes: int,
    factor: int,
    floor: Address,
    along: Address,
    out: int,
) -> None: ...
def uniform(place: Place, rows: int, address: Address, out: int) -> None: ...
def words(threads: int, seeds: int, rows: int, groups: int, address: Address, out: int) -> None: ...
def philox(counter: list[int], key: list[int]) -> list[int]: ...
def set_openmp(parallel: int, thread: int, team: int) -> None: ...
def isa() -> str: ...
def set_isa(name: str) -> bool: ...
def build_info() -> dict[str, str | bool]: ...
