# SPDX-License-Identifier: GPL-2.0-or-later
# Thin: meson builds, this only finds what meson needs and calls it.
#
#   make            build into build/
#   make test       everything: unit, simulation, probes, fuzz smoke, end to end
#   make soak       random simulations and real moves under load, SOAK_MINUTES=30
#   make demo       two hosts, one guest, A to B and back, while a client talks to it
#   make bench      against stock QEMU, and a journey of ten legs; an hour (bench/README.md)
#   make install    honours DESTDIR and PREFIX
#   make lint       clang-format, clang-tidy, cppcheck

BUILD  ?= build
PREFIX ?= /usr
SOAK_MINUTES ?= 30
MESON  := meson setup --prefix=$(PREFIX) --sysconfdir=/etc --localstatedir=/var

.PHONY: all test soak demo bench install lint deps clean

all: $(BUILD)/build.ninja
	ninja -C $(BUILD)

deps:
	tools/deps build

deps-test:
	tools/deps build test

$(BUILD)/build.ninja: | deps
	$(MESON) $(BUILD)

test: deps-test
	tests/run --build $(BUILD)

soak: deps-test
	tests/run --build $(BUILD) --soak $(SOAK_MINUTES)

demo: | all
	tools/deps guest
	lab/demo $(BUILD)

bench: | deps-test
	test -f build-release/build.ninja || $(MESON) -Dbuildtype=release build-release
	ninja -C build-release
	bench/run --build build-release --out $(BUILD)/bench --scenarios foundation,journey

install: all
	DESTDIR=$(DESTDIR) meson install -C $(BUILD) --no-rebuild

lint: deps-test $(BUILD)/build.ninja
	tools/lint $(BUILD)

clean:
	rm -rf $(BUILD) build-release build-asan build-tsan
