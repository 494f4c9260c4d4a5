// What tokenizers ask of Unicode: categories, lower case, canonical composition.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace slmc::run {

bool is_letter(uint32_t code);       // category L
bool is_number(uint32_t code);       // category N
bool is_mark(uint32_t code);         // category Mn
bool is_punctuation(uint32_t code);  // category P
bool is_other(uint32_t code);        // categories Cc, Cf and Co
bool is_word(uint32_t code);         // what \w matches
bool is_space(uint32_t code);        // White_Space
uint32_t lower_case(uint32_t code);

// Text that is no UTF-8 keeps its bytes.
std::string decomposed(std::string_view text);  // NFD
std::string composed(std::string_view text);    // NFC
std::string lowered(std::string_view text);

}  // namespace slmc::run
