// Fibers by setjmp and longjmp, which need no system call, on stacks that makecontext enters once.

#include "fibers.h"

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <memory>
#include <stdexcept>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_on_cpu {
namespace {

constexpr size_t kStack = 256 << 10, kGuard = 64 << 10;

struct Fiber {
  void* memory = nullptr;
  jmp_buf position;
  bool is_entered = false;
  bool is_inside_call = false;

  void* stack() const { return static_cast<char*>(memory) + kGuard; }
};

std::vector<std::unique_ptr<Fiber>> fibers;
jmp_buf scheduler;
int current = -1;
void (*work)(const void*) = nullptr;
const void* work_argument = nullptr;
const void* scheduler_stack = nullptr;
size_t scheduler_stack_size = 0;

// The address sanitizer has to know which stack is in use.
void announce_switch(const void* stack, size_t size) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(nullptr, stack, size);
#else
  (void)stack, (void)size;
#endif
}
void confirm_switch(bool is_into_fiber) {
#ifdef __SANITIZE_ADDRESS__
  const void* stack = nullptr;
  size_t size = 0;
  __sanitizer_finish_switch_fiber(nullptr, &stack, &size);
  if (is_into_fiber) scheduler_stack = stack, scheduler_stack_size = size;
#else
  (void)is_into_fiber;
#endif
}

void loop() {
  confirm_switch(true);
  for (;;) {
    fibers[current]->is_inside_call = true;
    work(work_argument);
    fibers[current]->is_inside_call = false;
    switch_to_scheduler();
  }
}

void enter(Fiber& fiber) {
  fiber.is_entered = true;
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = fiber.stack();
  context.uc_stack.ss_size = kStack;
  context.uc_link = nullptr;
  makecontext(&context, loop, 0);
  setcontext(&context);
}

}  // namespace

void make_fibers(int count) {
  while (int(fibers.size()) < count) {
    auto fiber = std::make_unique<Fiber>();
    fiber->memory = mmap(nullptr, kGuard + kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fiber->memory == MAP_FAILED) throw std::bad_alloc();
    mprotect(fiber->memory, kGuard, PROT_NONE);
    fibers.push_back(std::move(fiber));
  }
  for (auto& fiber : fibers) {
    if (fiber->is_inside_call) fiber->is_entered = fiber->is_inside_call = false;
  }
}

bool switch_to_fiber(int index, void (*call)(const void*), const void* argument) {
  Fiber& fiber = *fibers[index];
  current = index;
  work = call;
  work_argument = argument;
  announce_switch(fiber.stack(), kStack);
  if (_setjmp(scheduler) == 0) {
    if (fiber.is_entered) _longjmp(fiber.position, 1);
    enter(fiber);
  }
  confirm_switch(false);
  return !fibers[current]->is_inside_call;
}

void switch_to_scheduler() {
  announce_switch(scheduler_stack, scheduler_stack_size);
  if (_setjmp(fibers[current]->position) == 0) _longjmp(scheduler, 1);
  confirm_switch(true);
}

}  // namespace cuda_on_cpu
