// SPDX-License-Identifier: GPL-2.0-or-later
#include "sim.h"
void hostile_peers(void)
{
}
