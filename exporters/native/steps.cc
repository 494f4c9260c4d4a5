#include "steps.h"

#include <cmath>

namespace slmc {
namespace {

constexpr size_t kMostSteps = 256;
constexpr int kMostInputs = 1024;

[[noreturn]] void damaged(const std::string& line) {
  throw Refusal("attribute 'steps' has a line that is not known: '" + line.substr(0, 80) + "'");
}

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  for (size_t begin = 0;;) {
    const size_t end = text.find(at, begin);
    parts.push_back(text.substr(begin, end - begin));
    if (end == std::string::npos) return parts;
    begin = end + 1;
  }
}

// The number behind the letter of a value's name.
int number_of(const std::string& name, const std::string& line) {
  int number = 0;
  if (name.size() < 2 || name.size() > 5) damaged(line);
  for (size_t i = 1; i < name.size(); ++i) {
    if (name[i] < '0' || name[i] > '9') damaged(line);
    number = 10 * number + (name[i] - '0');
  }
  if (number >= kMostInputs) damaged(line);
  return number;
}

const Operator* step_operator(const std::string& type) {
  for (const auto* operators : {&standard_steps(), &all_operators()})
    for (const Operator& op : *operators) {
      if (type != op.name || op.outputs.back().presence == kVariadic) continue;
      for (const Port& port : op.outputs)
        if (port.type != kFloat) return nullptr;
      return &op;
    }
  return nullptr;
}

// Numbers of values while the text is read, when it is not known yet how many inputs there are: made ones behind these.
class Reader {
 public:
  StepsRecord read(const std::string& text) {
    const std::vector<std::string> lines = split(text, '\n');
    if (lines.size() < 2 || lines.size() > kMostSteps + 1) damaged(text);
    for (size_t i = 0; i + 1 < lines.size(); ++i) read_step(lines[i]);
    read_outputs(lines.back());
    for (StepRecord& step : record_.steps) {
      for (int& value : step.inputs) settle(&value);
      step.made += record_.inputs;
    }
    for (int& value : record_.outputs) settle(&value);
    record_.values = record_.inputs + made_;
    return std::move(record_);
  }

 private:
  void read_step(const std::string& line) {
    const std::vector<std::string> words = split(line, ' ');
    StepRecord step;
    step.type = words[0];
    step.op = step_operator(step.type);
    if (!step.op) damaged(line);
    std::vector<bool> there;
    for (size_t i = 1; i < words.size(); ++i) {
      const size_t equals = words[i].find('=');
      if (equals != std::string::npos) {
        step.attributes[words[i].substr(0, equals)] = words[i].substr(equals + 1);
        continue;
      }
      step.inputs.push_back(words[i] == "-" ? kLeftOut : value_of(words[i], line));
      there.push_back(words[i] != "-");
    }
    expect_ports(*step.op, there, step.op->outputs.size());
    step.made = made_;
    made_ += static_cast<int>(step.op->outputs.size());
    record_.steps.push_back(std::move(step));
  }

  void read_outputs(const std::string& line) {
    const std::vector<std::string> words = split(line, ' ');
    if (words[0] != "out" || words.size() < 2) damaged(line);
    std::vector<bool> given(static_cast<size_t>(made_));
    for (size_t i = 1; i < words.size(); ++i) {
      const int value = value_of(words[i], line);
      if (value < kMade || given[value - kMade]) damaged(line);
      given[value - kMade] = true;
      record_.outputs.push_back(value);
    }
  }

  int value_of(const std::string& name, const std::string& line) {
    const int number = number_of(name, line);
    if (name[0] == 'i') {
      if (number >= record_.inputs) record_.inputs = number + 1;
      return number;
    }
    if (name[0] != 'v' || number >= made_) damaged(line);
    return kMade + number;
  }

  void settle(int* value) const {
    if (*value >= kMade) *value += record_.inputs - kMade;
  }

  static constexpr int kLeftOut = -1, kMade = kMostInputs;
  StepsRecord record_;
  int made_ = 0;
};

int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

}  // namespace

StepsRecord read_steps(const std::string& text) { return Reader().read(text); }

bool read_hexadecimal(const std::string& text, float* out) {
  const size_t begin = text.size() && text[0] == '-';
  if (text.compare(begin, 2, "0x") != 0) return false;
  double mantissa = 0;
  int exponent = 0, said = 0;
  bool fraction = false;
  size_t at = begin + 2;
  for (; at < text.size() && text[at] != 'p'; ++at) {
    if (text[at] == '.') {
      if (fraction) return false;
      fraction = true;
      continue;
    }
    if (digit_of(text[at]) < 0 || mantissa > 4e15) return false;
    mantissa = 16 * mantissa + digit_of(text[at]);
    if (fraction) exponent -= 4;
  }
  if (at == begin + 2 || at + 2 >= text.size()) return false;
  const char sign = text[++at];
  if (sign != '+' && sign != '-') return false;
  for (++at; at < text.size(); ++at) {
    if (text[at] < '0' || text[at] > '9' || said > 9999) return false;
    said = 10 * said + (text[at] - '0');
  }
  const double value = std::ldexp(mantissa, exponent + (sign == '-' ? -said : said));
  *out = static_cast<float>(begin ? -value : value);
  return true;
}

}  // namespace slmc
