// What the machine and this process say of themselves, as targets/device reads it: memory, conditions, the CPU.
#pragma once
#include <string>

#include "json_text.h"

namespace slmc::run {

// One weighing of this process, in bytes; see targets/device/memory.py.
struct Weight {
  size_t rss = 0, pss = 0, private_ = 0, anonymous = 0, peak = 0;
};

Weight weigh();
void write_facts(JsonText* json, const char* name, const Weight& weight);

// targets/device/conditions.py; negative numbers are what the machine does not say.
struct Conditions {
  std::string governor;
  double clock_mhz = -1, temperature_c = -1, throttle_events = -1, undervolted = -1;
};

Conditions conditions();
void write_facts(JsonText* json, const char* name, const Conditions& conditions);

// The CPU's name; of an Arm core its implementer and part, which the other side knows by name.
std::string cpu_name();
// Bytes of a data cache as one core sees it, and of the largest; 0 where the machine does not say.
size_t cache_bytes(int level);
size_t last_cache_bytes();
// Gigabytes (1e9) per second that one thread reads from memory; negative where there is too little to tell.
double read_bandwidth_gbs();

// Gives back the memory of this program's code and constants, most of which only loading needs: what runs on is mapped
// again, some twenty faults that read nothing.
void give_back_code();

// Wall and CPU time in milliseconds.
struct Timed {
  double wall = 0, cpu = 0;
};
Timed now_ms();
// What has passed. Wall time is taken around CPU time, as targets/device/clock.py says: a process that has used up its
// share of a core is stopped where it enters the kernel.
Timed since_ms(const Timed& began);
// A fixed piece of work, some 1 ms of one core within the first cache.
Timed reference_piece();
// The median of five.
Timed timed_reference();

// The text of a file in /proc or /sys, empty where there is none.
std::string file_text(const std::string& path);
// The number in a line 'Name:  123 kB' of such a text, in bytes.
size_t kilobytes(const std::string& text, const char* name);

}  // namespace slmc::run
