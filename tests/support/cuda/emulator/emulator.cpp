// Executes CUDA kernels on the CPU, in CUDA's execution model.
//
// The threads of a block are fibers of one thread of the system. One runs until it ends, or waits at a barrier or a
// shuffle; then the next one does, in an order that tests choose. So everything is deterministic, and a result that
// depends on the order betrays a race. What CUDA leaves undefined is an error here: a barrier that not all threads of a
// block reach, a shuffle whose lanes disagree about who takes part, a misaligned vector, shared memory read before it
// was written (it holds NaNs).

#include "emulator.h"

#include <link.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "fibers.h"
#include "include/cuda_runtime.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace cuda_on_cpu {
namespace {

constexpr int kWarp = 32, kMostThreads = 1024;

enum class State { ready, at_barrier, at_shuffle, ended };

// Where a thread waits, and what it brought to a shuffle.
struct Thread {
  State state = State::ready;
  Site site;
  unsigned mask = 0;
  int source = 0;  // lane whose value it wants
  uint64_t value = 0;
};

struct Counts {
  int64_t launches = 0, blocks = 0, threads = 0, barriers = 0, shuffles = 0;
};

int64_t order = 0;
Counts counts;
std::vector<Thread> threads;
int running = -1;     // the thread that runs, -1 between threads
std::string failure;  // of the thread that ran last

std::map<std::string, int64_t>& launches() {
  static std::map<std::string, int64_t> by_name;
  return by_name;
}

// Ends the block: the thread never runs on, and `execute` throws.
[[noreturn]] void fail(const std::string& why) {
  failure = why;
  switch_to_scheduler();
  __builtin_unreachable();
}

std::string place(const Site& site) {
  const std::string file = site.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(site.line());
}

std::string where(int t) {
  const Thread& thread = threads[t];
  const std::string name = "thread " + std::to_string(t);
  if (thread.state == State::ended) return name + " has ended";
  if (thread.state == State::at_barrier) return name + " waits at the barrier of " + place(thread.site);
  std::ostringstream text;
  text << name << " waits at the shuffle of " << place(thread.site) << ", mask 0x" << std::hex << thread.mask;
  return text.str();
}

void wait(State state, const Site& site) {
  Thread& thread = threads[running];
  thread.state = state;
  thread.site = site;
  switch_to_scheduler();
}

// Thread-local data of the library that holds `anchor`: all shared arrays of its kernels.
struct Shared {
  const volatile char* anchor;
  char* data = nullptr;
  size_t size = 0;
};

Shared shared_memory(const volatile char* anchor) {
  Shared found = {anchor};
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* result) {
        Shared& found = *static_cast<Shared*>(result);
        char* const data = static_cast<char*>(info->dlpi_tls_data);
        for (int i = 0; i < info->dlpi_phnum && data != nullptr; ++i) {
          const ElfW(Phdr)& segment = info->dlpi_phdr[i];
          if (segment.p_type != PT_TLS || found.anchor < data || found.anchor >= data + segment.p_memsz) continue;
          found.data = data;
          found.size = segment.p_memsz;
        }
        return 0;
      },
      &found);
  if (found.data == nullptr) throw std::logic_error("the emulator does not find shared memory");
  return found;
}

// Bytes of 0xff: NaN for every floating-point type.
void spoil(const Shared& shared) {
  for (size_t i = 0; i < shared.size; ++i) shared.data[i] = char(0xff);
}

std::vector<int64_t> permutation(int64_t count, int64_t seed) {
  std::vector<int64_t> result(count);
  std::iota(result.begin(), result.end(), 0);
  if (seed == 1) std::reverse(result.begin(), result.end());
  if (seed > 1) std::shuffle(result.begin(), result.end(), std::mt19937_64(seed));
  return result;
}

void resume(int t, const Kernel& kernel) {
  running = t;
  threadIdx = {t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y};
  if (switch_to_fiber(t, kernel.call, kernel.arguments)) threads[t].state = State::ended;
  running = -1;
}

int count_of(State state) {
  return int(std::count_if(threads.begin(), threads.end(), [&](const Thread& t) { return t.state == state; }));
}

// Why nothing can go on: what the first thread waits for, and one that is elsewhere.
std::string stuck() {
  const int size = int(threads.size());
  int first = 0, other = 0;
  while (threads[first].state == State::ended) ++first;
  while (other < size && threads[other].state == threads[first].state) ++other;
  return "the block is stuck: " + where(first) + (other < size ? ", but " + where(other) : "");
}

void run_block(const Kernel& kernel, const std::vector<int64_t>& turns) {
  threads.assign(turns.size(), Thread());
  failure.clear();
  while (count_of(State::ended) < int(threads.size())) {
    bool is_stuck = true;
    for (const int64_t t : turns) {
      if (threads[t].state != State::ready) continue;
      is_stuck = false;
      resume(int(t), kernel);
      if (!failure.empty()) throw std::runtime_error(failure);
    }
    if (!is_stuck) continue;
    if (count_of(State::at_barrier) < int(threads.size())) throw std::runtime_error(stuck());
    for (Thread& thread : threads) thread.state = State::ready;
    ++counts.barriers;
  }
  counts.threads += int64_t(threads.size());
  ++counts.blocks;
}

void check_launch(const dim3& grid, const dim3& block) {
  const bool is_grid = grid.x >= 1 && grid.x <= 0x7fffffff && grid.y >= 1 && grid.y <= 65535 && grid.z >= 1 &&
                       grid.z <= 65535;
  const int64_t size = int64_t(block.x) * block.y * block.z;
  if (!is_grid) throw std::runtime_error("no device takes a grid of this size");
  if (size < 1 || size > kMostThreads || block.z > 64) throw std::runtime_error("no device takes a block of this size");
}

void run_grid(const Kernel& kernel, const cudaLaunchConfig_t& config) {
  check_launch(config.gridDim, config.blockDim);
  gridDim = config.gridDim;
  blockDim = config.blockDim;
  const int64_t size = int64_t(blockDim.x) * blockDim.y * blockDim.z;
  const std::vector<int64_t> turns = permutation(size, order);
  const Shared shared = shared_memory(kernel.anchor);
  make_fibers(int(size));
  for (const int64_t b : permutation(int64_t(gridDim.x) * gridDim.y * gridDim.z, order)) {
    blockIdx = {unsigned(b % gridDim.x), unsigned(b / gridDim.x % gridDim.y), unsigned(b / gridDim.x / gridDim.y)};
    spoil(shared);
    run_block(kernel, turns);
  }
}

// Whether all lanes of the mask have come to the shuffle; fails if one can't come.
bool is_complete(int first, unsigned mask, const Site& site) {
  for (int lane = 0; lane < kWarp; ++lane) {
    if (!(mask >> lane & 1)) continue;
    const int t = first + lane;
    if (t >= int(threads.size())) fail("the mask of the shuffle of " + place(site) + " names a lane that does not exist");
    const Thread& other = threads[t];
    if (other.state == State::ended) fail("the mask of the shuffle of " + place(site) + " names a lane, but " + where(t));
    if (other.state != State::at_shuffle) return false;
    if (other.mask != mask) fail("lanes of the shuffle of " + place(site) + " have different masks: " + where(t));
  }
  return true;
}

}  // namespace

bool add_instance(const char* name) {
  launches()[name] += 0;
  return true;
}

void execute(const Kernel& kernel, const cudaLaunchConfig_t& config) {
  ++counts.launches;
  ++launches()[kernel.name];
  try {
    run_grid(kernel, config);
  } catch (const std::runtime_error& e) {
    throw std::runtime_error(std::string(kernel.name) + ": " + e.what());
  }
}

void wait_at_barrier(const Site& site) { wait(State::at_barrier, site); }

uint64_t shuffle_xor(unsigned mask, uint64_t value, int lane_mask, int width, const Site& site) {
  const int lane = running % kWarp, first = running - lane;
  if (!(mask >> lane & 1)) fail("lane " + std::to_string(lane) + " shuffles at " + place(site) + ", but its mask leaves it out");
  const int source = lane ^ lane_mask;
  if (width != kWarp || source < 0 || source >= kWarp) fail("the shuffle of " + place(site) + " reads beyond its warp");
  if (!(mask >> source & 1)) fail("the shuffle of " + place(site) + " reads a lane outside its mask");
  Thread& own = threads[running];
  own.mask = mask;
  own.source = source;
  own.value = value;
  const int me = running;
  own.state = State::at_shuffle;
  own.site = site;
  if (is_complete(first, mask, site)) {
    std::vector<uint64_t> values(kWarp);
    for (int i = 0; i < kWarp; ++i) values[i] = mask >> i & 1 ? threads[first + i].value : 0;
    for (int i = 0; i < kWarp; ++i) {
      if (!(mask >> i & 1)) continue;
      threads[first + i].value = values[threads[first + i].source];
      threads[first + i].state = State::ready;
    }
    ++counts.shuffles;
  } else {
    switch_to_scheduler();
  }
  return threads[me].value;
}

void check_alignment(const void* address, size_t alignment) {
  uintptr_t number = reinterpret_cast<uintptr_t>(address);
  asm volatile("" : "+r"(number));  // the compiler takes the type's word for it
  if (number % alignment == 0 || running < 0) return;
  fail("a vector of " + std::to_string(alignment) + " bytes lies at an address that is no multiple of its size");
}

}  // namespace cuda_on_cpu

void cuda_on_cpu_set_order(int64_t wanted) { cuda_on_cpu::order = wanted; }

const char* cuda_on_cpu_launches() {
  static std::string text;
  std::ostringstream lines;
  for (const auto& [name, count] : cuda_on_cpu::launches()) lines << count << ' ' << name << '\n';
  text = lines.str();
  return text.c_str();
}

void cuda_on_cpu_counts(int64_t result[5]) {
  const cuda_on_cpu::Counts& c = cuda_on_cpu::counts;
  const int64_t values[5] = {c.launches, c.blocks, c.threads, c.barriers, c.shuffles};
  std::copy(values, values + 5, result);
}
