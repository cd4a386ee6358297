#include "parallel.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace headstart::cpu {
namespace {

OpenMP openmp{};

struct Job {
  std::int64_t count;
  const std::function<void(std::int64_t, std::int64_t)>* body;
  std::exception_ptr failure;
  std::mutex lock;

  void run(std::int64_t thread, std::int64_t team) {
    const std::int64_t begin = count * thread / team, end = count * (thread + 1) / team;
    if (begin == end) return;
    try {
      (*body)(begin, end);
    } catch (...) {  // an exception must not leave a thread of the team
      const std::lock_guard<std::mutex> guard(lock);
      failure = std::current_exception();
    }
  }
};

void run_member(void* data) {
  static_cast<Job*>(data)->run(openmp.thread(), openmp.team());
}

}  // namespace

void set_openmp(OpenMP runtime) {
  openmp = runtime;
}

void parallel_for(std::int64_t count, int threads, const std::function<void(std::int64_t, std::int64_t)>& body) {
  const int team = static_cast<int>(std::min<std::int64_t>(threads, count));
  if (team <= 1) {
    if (count > 0) body(0, count);
    return;
  }
  Job job{count, &body, nullptr, {}};
  if (openmp.parallel != nullptr) {
    openmp.parallel(run_member, &job, static_cast<unsigned>(team), 0);
  } else {
    std::vector<std::thread> helpers;
    for (int i = 1; i < team; ++i) helpers.emplace_back([&job, i, team] { job.run(i, team); });
    job.run(0, team);
    for (std::thread& helper : helpers) helper.join();
  }
  if (job.failure) std::rethrow_exception(job.failure);
}

}  // namespace headstart::cpu
