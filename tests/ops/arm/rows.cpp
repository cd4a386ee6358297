// Rows of a float32 state on standard output, as raw bytes: run on another processor, to be compared with this one's.
#include <cstdio>
#include <vector>

#include "../../../csrc/kernels.h"

using namespace headstart;

int main() {
  constexpr std::int64_t rows = 7, columns = 1003;
  std::vector<float> x(rows * columns), y(rows * columns), out(rows * columns);
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<float>(i % 97) / 64 - 0.5f;
    y[i] = static_cast<float>(i % 89) / 32;
  }
  AffineParams p{};
  p.rows = rows, p.columns = columns, p.x = x.data(), p.a = 0.7, p.inputs = 1, p.y[0] = y.data(), p.b[0] = 0.3;
  p.noise_scale = 0.9, p.address = {0x9E3779B97F4A7C15, 5, 6, 1, nullptr}, p.out = out.data(), p.scale = 1;
  cpu::affine(p, 2);
  return std::fwrite(out.data(), sizeof(float), out.size(), stdout) == out.size() ? 0 : 1;
}
