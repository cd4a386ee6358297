// The threads of a block as fibers. The first entry into one is a setcontext; every later switch is a pair of _setjmp
// and _longjmp, which make no system call.
#include <setjmp.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "cuda_runtime.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_shim {
namespace {

constexpr std::size_t kStack = 128 * 1024;

struct Fiber {
  std::unique_ptr<char[]> stack{new char[kStack]};
  ucontext_t entry;
  jmp_buf resume;
  unsigned thread, turn;
  bool started, done;
};

// Released when all of its threads have come.
struct Barrier {
  unsigned size, arrived, generation;
};

std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<Barrier> warps;
std::vector<std::uint64_t> slots;
Barrier block_barrier;
Fiber* current;
jmp_buf scheduler;
const std::function<void()>* kernel;
bool falling, moved;

// An address sanitizer has to be told of each change of stacks: before it, where to, and after it.
#if defined(__SANITIZE_ADDRESS__)
const void* scheduler_stack;
std::size_t scheduler_size;
void leave_for_scheduler() {
  __sanitizer_start_switch_fiber(nullptr, scheduler_stack, scheduler_size);
}
void leave_for_fiber(const Fiber& fiber) {
  __sanitizer_start_switch_fiber(nullptr, fiber.stack.get(), kStack);
}
void arrive_in_fiber() {
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_size);
}
void arrive_in_scheduler() {
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
}
#else
void leave_for_scheduler() {}
void leave_for_fiber(const Fiber&) {}
void arrive_in_fiber() {}
void arrive_in_scheduler() {}
#endif

void enter() {
  arrive_in_fiber();
  (*kernel)();
  current->done = true;
  leave_for_scheduler();
  _longjmp(scheduler, 1);
}

__attribute__((noinline)) void yield() {
  if (_setjmp(current->resume) == 0) {
    leave_for_scheduler();
    _longjmp(scheduler, 1);
  }
  arrive_in_fiber();
}

__attribute__((noinline)) void resume(Fiber& fiber) {
  current = &fiber;
  threadIdx.x = fiber.thread;
  if (_setjmp(scheduler) != 0) {
    arrive_in_scheduler();
    return;
  }
  leave_for_fiber(fiber);
  if (current->started) _longjmp(current->resume, 1);
  current->started = true;
  setcontext(&current->entry);
}

void wait(Barrier& barrier) {
  const unsigned generation = barrier.generation;
  moved = true;
  if (++barrier.arrived == barrier.size) {
    barrier.arrived = 0;
    ++barrier.generation;
    return;
  }
  while (barrier.generation == generation) yield();
}

void prepare(unsigned threads) {
  while (fibers.size() < threads) fibers.push_back(std::make_unique<Fiber>());
  warps.assign((threads + 31) / 32, Barrier{});
  slots.resize(warps.size() * 64);
  block_barrier = {threads, 0, 0};
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = *fibers[i];
    getcontext(&fiber.entry);
    fiber.entry.uc_stack = {fiber.stack.get(), 0, kStack};
    fiber.entry.uc_link = nullptr;
    makecontext(&fiber.entry, enter, 0);
    fiber.thread = i;
    fiber.turn = 0;
    fiber.started = fiber.done = false;
    ++warps[i / 32].size;
  }
}

// Runs one warp as far as it gets before any other, so that warps drift apart as far as the barriers allow. Returns
// whether anything moved.
bool run_warp(unsigned warp, unsigned& left) {
  bool any = false;
  do {
    moved = false;
    for (unsigned i = 0; i < warps[warp].size; ++i) {
      Fiber& fiber = *fibers[32 * warp + (falling ? warps[warp].size - 1 - i : i)];
      if (fiber.done) continue;
      resume(fiber);
      if (fiber.done) {
        moved = true;
        --left;
      }
    }
    any = any || moved;
  } while (moved);
  return any;
}

void run_block(unsigned threads) {
  prepare(threads);
  for (unsigned left = threads; left > 0;) {
    bool any = false;
    for (unsigned i = 0; i < warps.size(); ++i) any = run_warp(falling ? warps.size() - 1 - i : i, left) || any;
    if (!any && left > 0) {
      std::fputs("cuda_shim: some threads wait at a barrier that others never reach\n", stderr);
      std::abort();
    }
  }
}

}  // namespace

void wait_for_block() {
  wait(block_barrier);
}
void wait_for_warp() {
  wait(warps[threadIdx.x / 32]);
}
std::uint64_t& slot(unsigned lane, unsigned turn) {
  return slots[64 * (threadIdx.x / 32) + 32 * turn + lane];
}
unsigned next_turn() {
  return current->turn ^= 1u;
}

void run(dim3 grid, dim3 block, const std::function<void()>& body) {
  kernel = &body;
  gridDim = grid;
  blockDim = block;
  for (unsigned i = 0; i < grid.x; ++i) {
    blockIdx.x = i;
    run_block(block.x);
  }
}

}  // namespace cuda_shim

extern "C" void cuda_shim_set_falling(int value) {
  cuda_shim::falling = value != 0;
}
