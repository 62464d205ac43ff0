'use client'

import { QuickAccess } from '@rapport-chat/react/navigation'
import type { ReactNode } from 'react'

export const Access = (): ReactNode => <QuickAccess onOpen={() => undefined} />
