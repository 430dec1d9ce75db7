// The group page: its elements, in the order in which they need each other.

import "./main.js";
import "./run.js";
import "./connection-state.js";
import "./panel.js";
import "./pins.js";
import "./search.js";
import "./typing.js";
import "./group-settings.js";
import "./life.js";
import "./timeline.js";
import "./composer.js";
import { room } from "./room.js";

room.start();
