# Two commands for a fresh machine: `make demo` and `make test`. Both set up what they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SAMPLE := samples/spikegpt-6m
INSTALLED := $(VENV)/.installed
SOURCES := $(shell find exporters/native -name '*.cc' -o -name '*.h' -o -name CMakeLists.txt)
NATIVE := build/native
AARCH64 := $(NATIVE)/linux-aarch64/libslmc_ops.so
SYSROOT := build/aarch64/sysroot
OLDEST := build/oldest/.installed
SANITIZED := $(NATIVE)/sanitized/libslmc_ops.so
SANITIZERS := -O1 -g1 -fno-var-tracking -fno-omit-frame-pointer -fno-sanitize-recover=all \
	-fsanitize=address,signed-integer-overflow,shift,integer-divide-by-zero,bounds \
	-fno-sanitize-address-use-after-scope --param asan-stack=0 --param asan-instrumentation-with-call-threshold=0
# Python is not linked to libstdc++, which AddressSanitizer must find at start to see exceptions; it keeps its memory.
WITH_ASAN = env ASAN_OPTIONS=detect_leaks=0 \
	LD_PRELOAD=$(shell $(CXX) -print-file-name=libasan.so):$(shell $(CXX) -print-file-name=libstdc++.so)
IN_CHILD = PYTHONPATH=tests/child_runtime $(BIN)/python -m pytest -q -p child_runtime -p no:cacheprovider \
	--ignore tests/exporters/native/test_aarch64.py --ignore tests/exporters/native/test_fuzz.py
CMAKE = PATH="$(abspath $(BIN)):$$PATH" cmake

.PHONY: runtime runtime-small runtime-cross test-runtime-cross fuzz-runtime demo test check docs clean native-aarch64 test-aarch64 sanitize fuzz

demo: $(INSTALLED)
	$(BIN)/slmc build $(SAMPLE) --max-memory 13.5% --max-drop 1% --threads 2 -o demo --force
	$(BIN)/slmc report demo
	$(BIN)/python demo/run.py -p "The ship left the harbour at dawn, and" -n 120

# Two test files at a time: most of them use one thread. Tests of one file share what they built, so a file is not divided.
test: $(INSTALLED) $(OLDEST) check docs
	$(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The documentation site, in build/site; warnings are errors.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# The operators for 64-bit Arm boards; needs Debian's g++-aarch64-linux-gnu.
native-aarch64: $(AARCH64)

# The operators' tests under emulation; needs Debian's qemu-user, and the network once (build/aarch64 keeps what it got).
test-aarch64: $(AARCH64) $(SYSROOT)
	$(BIN)/python -m pytest -q tests/exporters/native/test_aarch64.py tests/targets/remote/test_emulation.py

# The operators' tests with AddressSanitizer and UndefinedBehaviorSanitizer in the kernels; the build takes a while.
sanitize: $(SANITIZED)
	$(IN_CHILD) --operators $< --interpreter "$(WITH_ASAN) $(BIN)/python" tests/exporters/native tests/exporters/ops
	$(WITH_ASAN) $(IN_CHILD) --operators $< tests/exporters/ops/test_recurrences.py

# The same with every model that a test runs also in MUTANTS mutated forms.
MUTANTS := 20
fuzz: $(SANITIZED)
	$(IN_CHILD) --operators $< --interpreter "$(WITH_ASAN) $(BIN)/python" --mutants $(MUTANTS) \
		tests/exporters/native tests/exporters/ops

# The runtime of our own, as a program and as a library: build/run/slmc-run, build/run/libslmc_run.a.
runtime: | $(INSTALLED)
	$(CMAKE) -S exporters/native -B build/run -G Ninja
	$(CMAKE) --build build/run --target slmc-run slmc_run

# A small slmc-run, by ziglang from PyPI with static musl: build/small/linux-PROCESSOR/slmc-run (x86_64, aarch64, armv7l,
# riscv64). LEVELS leaves kernels out that a board of one kind does not use: LEVELS=avx2, "avx2;avx_vnni", or neon.
PROCESSOR := x86_64
LEVELS :=
ZIG = $(abspath $(shell $(BIN)/python -c "import ziglang; print(ziglang.__path__[0])")/zig)
runtime-small: | $(INSTALLED)
	$(BIN)/pip install --quiet --constraint constraints.txt ziglang
	$(CMAKE) -S exporters/native -B build/small/linux-$(PROCESSOR) -G Ninja --toolchain zig.cmake \
		-DSLMC_ZIG="$(ZIG)" -DSLMC_PROCESSOR=$(PROCESSOR) \
		$(if $(LEVELS),"-DSLMC_LEVELS=$(LEVELS)")
	$(CMAKE) --build build/small/linux-$(PROCESSOR) --target slmc-run

# The same for boards; needs Debian's cross compilers (g++-aarch64-linux-gnu, g++-arm-linux-gnueabihf,
# g++-riscv64-linux-gnu).
CROSS := aarch64:aarch64-linux-gnu armv7l:arm-linux-gnueabihf riscv64:riscv64-linux-gnu
runtime-cross: | $(INSTALLED)
	for pair in $(CROSS); do folder=$(NATIVE)/linux-$${pair%%:*}; \
		$(CMAKE) -S exporters/native -B $$folder -G Ninja --toolchain $${pair##*:}.cmake && \
		$(CMAKE) --build $$folder --target slmc-run slmc-run-driver || exit 1; done

# Those under emulation: all cases of operators, and a tiny artifact of every family. Needs qemu-user.
EMULATORS := "qemu-aarch64 -cpu cortex-a53" "qemu-aarch64 -cpu cortex-a76" "qemu-arm -cpu cortex-a15" qemu-riscv64
test-runtime-cross: runtime-cross
	for emulator in $(EMULATORS); do \
		$(BIN)/python -m pytest -q --emulator "$$emulator" tests/exporters/ops -k runtime && \
		$(BIN)/python -m pytest -q --emulator "$$emulator" tests/exporters/native/run/test_standard.py \
			tests/exporters/native/run/test_artifacts.py || exit 1; done

# Altered artifacts (ARTIFACT) under AddressSanitizer, LeakSanitizer and UndefinedBehaviorSanitizer, MUTANTS per SEED.
ARTIFACT := demo
SEED := 1
fuzz-runtime: | $(INSTALLED)
	$(CMAKE) -S exporters/native -B $(NATIVE)/sanitized-run -G Ninja -DSLMC_RUN_SANITIZED=ON
	$(CMAKE) --build $(NATIVE)/sanitized-run --target slmc-run-fuzz
	ASAN_OPTIONS=detect_container_overflow=0:detect_leaks=1 $(NATIVE)/sanitized-run/slmc-run-fuzz $(ARTIFACT) $(MUTANTS) $(SEED)

$(SANITIZED): $(SOURCES) | $(INSTALLED)
	$(CMAKE) -S exporters/native -B $(@D) -G Ninja -DCMAKE_BUILD_TYPE=Sanitized -DCMAKE_CXX_FLAGS_SANITIZED="$(SANITIZERS)"
	$(CMAKE) --build $(@D)
	touch $@

$(AARCH64): $(SOURCES) exporters/native/aarch64-linux-gnu.cmake | $(INSTALLED)
	$(CMAKE) -S exporters/native -B $(@D) -G Ninja --toolchain aarch64-linux-gnu.cmake
	$(CMAKE) --build $(@D)
	touch $@

$(SYSROOT): targets/sysroot-wheels.txt | $(INSTALLED)
	rm -rf $@
	$(BIN)/python -m targets.remote.sysroot $@

# The oldest releases that a device may have: artifacts and function bodies are tried on them too.
$(OLDEST): constraints-oldest.txt
	test -x build/oldest/bin/python || $(PYTHON) -m venv build/oldest
	build/oldest/bin/pip install --quiet --constraint constraints-oldest.txt numpy onnxruntime tokenizers
	touch $@

$(INSTALLED): pyproject.toml constraints.txt $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt scikit-build-core cmake ninja
	$(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[toolchain,dev]'
	touch $@

clean:
	rm -rf $(VENV) build demo
